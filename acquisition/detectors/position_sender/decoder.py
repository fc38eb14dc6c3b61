"""Makes positions of the messages of a user's program."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from ptychoflow.acquisition.detectors.arrivals import (
    Arrival,
    Malformed,
    PositionsBegan,
    PositionsCame,
    PositionsEnded,
)
from ptychoflow.acquisition.detectors.interface import Decoder, Part
from ptychoflow.acquisition.detectors.position_sender.messages import Begin, End, Positions, decode
from ptychoflow.acquisition.detectors.position_sender.settings import PositionSenderSettings
from ptychoflow.acquisition.scan import Ending

RUNS_REMEMBERED = 256


class PositionSenderDecoder(Decoder):
    """Decodes one run of positions after the other. A `begin` that was lost is made up for by what follows."""

    def __init__(self, settings: PositionSenderSettings) -> None:
        self._max_message_bytes = settings.max_message_bytes
        self._run: str | None = None
        self._ended: deque[str] = deque(maxlen=RUNS_REMEMBERED)

    def decode(self, parts: Sequence[Part]) -> Iterable[Arrival]:
        """Return what a message says."""
        if len(parts) != 1 or len(parts[0]) > self._max_message_bytes:
            size = sum(len(part) for part in parts)
            return [Malformed(f"a message of positions has {len(parts)} parts and {size} bytes")]
        try:
            message = decode(parts[0])
        except ValueError as error:
            return [Malformed(str(error))]
        if message.run in self._ended:
            return (
                [] if isinstance(message, End) else [Malformed(f"more came of the run {message.run!r} that had ended")]
            )
        match message:
            case Begin():
                return list(self._open(message))
            case Positions():
                return [*self._open(Begin(message.run)), _positions(message)]
            case End():
                ending = Ending.COMPLETE if message.complete else Ending.ABORTED
                return [*self._open(Begin(message.run)), *self._close(ending)]

    def _open(self, begin: Begin) -> Iterator[Arrival]:
        if begin.run != self._run:
            yield from self._close(Ending.NEXT_SERIES)
            self._run = begin.run
            yield PositionsBegan(begin.run, begin.series, begin.total)

    def _close(self, ending: Ending) -> Iterator[Arrival]:
        if self._run is not None:
            yield PositionsEnded(self._run, ending)
            self._ended.append(self._run)
            self._run = None


def _positions(message: Positions) -> PositionsCame:
    positions_m = np.array(message.positions_m, dtype=np.float64).reshape(-1, 2)
    if message.numbers is not None:
        numbers = np.array(message.numbers, dtype=np.int64)
    else:
        first = message.first or 0
        numbers = np.arange(first, first + len(positions_m), dtype=np.int64)
    return PositionsCame(message.run, numbers, positions_m)
