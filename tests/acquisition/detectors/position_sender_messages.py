"""Messages of `PositionSender` for `mutated_messages`."""

from __future__ import annotations

from collections.abc import Sequence

from mutated_messages import Message, Stream

from ptychoflow.acquisition.detectors.position_sender.decoder import PositionSenderDecoder
from ptychoflow.acquisition.detectors.position_sender.messages import Begin, End, Positions, encode
from ptychoflow.acquisition.detectors.position_sender.settings import PositionSenderSettings


def messages() -> Sequence[Message]:
    """Return those of two runs of positions."""
    pairs = [(number * 1e-6, -number * 1e-6) for number in range(50)]
    return [
        [encode(message)]
        for run in ("one", "two")
        for message in (
            Begin(run, "7", 400),
            Positions(run, pairs[:1], first=0),
            Positions(run, pairs, numbers=list(range(1, 51))),
            End(run),
        )
    ]


STREAM = Stream(lambda: PositionSenderDecoder(PositionSenderSettings()), messages)
