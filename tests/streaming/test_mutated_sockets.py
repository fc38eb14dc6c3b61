"""All receivers beside each other, with good messages between malformed ones; `mutated_sockets.py` sends millions."""

from __future__ import annotations

import random
from contextlib import ExitStack
from pathlib import Path

import mutated_sockets
import pytest
import zmq
from mutated_sockets import Campaign, Done, NotHeld, Receiver


def test_every_receiver_outlives_what_nobody_can_read_and_counts_every_good_message(tmp_path: Path) -> None:
    with ExitStack() as stack:
        campaign = Campaign(tmp_path, 20, stack, Done())
        for _ in range(2):
            campaign.round(messages=1600, events=100, requests=20, viewers=20)


def full(_parts: list[bytes]) -> None:
    raise zmq.Again


@pytest.mark.parametrize("send", [full, lambda _parts: None], ids=["takes nothing", "hears nothing"])
def test_the_program_ends_with_words_when_a_receiver_does_not_take_in_what_it_is_sent(
    send, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mutated_sockets, "TIME_LIMIT_S", 0.05)
    deaf = Receiver("edge", "data", send, lambda _number: [b"good"], lambda: None, lambda: 0, lambda: 0)
    with pytest.raises(NotHeld, match=r"edge: took in 0 of \d good messages and counted 0 of \d+ broken ones"):
        deaf.feed(200, random.Random(1))
