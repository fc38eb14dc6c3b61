"""What a connection delivers while a thread drains it, and what a decoder makes of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest
from support import wait_until

from ptychoflow.acquisition.detectors.arrivals import Arrival, PositionsCame, PositionsEnded
from ptychoflow.acquisition.detectors.interface import Connection, Decoder, Deliver, Part


class Drained:
    """The messages that were delivered; a new decoder reads all of them whenever it is asked."""

    def __init__(self, new_decoder: Callable[[], Decoder]) -> None:
        self.messages: list[Sequence[Part]] = []
        self._new_decoder = new_decoder

    @property
    def arrivals(self) -> list[Arrival]:
        decoder = self._new_decoder()
        return [arrival for parts in tuple(self.messages) for arrival in decoder.decode(parts)]

    def of(self, kind: type[Any]) -> list[Any]:
        return [arrival for arrival in self.arrivals if isinstance(arrival, kind)]

    def ended(self, count: int) -> bool:
        return len(self.of(PositionsEnded)) >= count

    def positions_m(self, run: str) -> dict[int, tuple[float, float]]:
        return {
            int(number): (float(y), float(x))
            for arrival in self.of(PositionsCame)
            if arrival.run == run
            for number, (y, x) in zip(arrival.numbers, arrival.positions_m, strict=True)
        }


DrainedT = TypeVar("DrainedT", bound=Drained)


@contextmanager
def drains(connection: Connection, deliver: Deliver) -> Iterator[None]:
    """Drain a connection in a thread until the context ends, and see the thread end."""
    stop = threading.Event()
    thread = threading.Thread(target=connection.drain, args=(deliver, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10.0)
        assert not thread.is_alive()


@contextmanager
def drains_folder(
    connection: Connection,
    drained: DrainedT,
    caplog: pytest.LogCaptureFixture,
    *,
    recalled: Sequence[Sequence[Part]],
    left_out: str | None,
) -> Iterator[DrainedT]:
    """Drain a connection that has recalled messages, from when it has logged that it leaves out what was there before.

    `left_out`: what it logs then; None where it takes that as well.
    """
    caplog.set_level("INFO")
    caplog.clear()
    for parts in recalled:
        connection.recall(parts)
    with drains(connection, drained.messages.append):
        wait_until(lambda: left_out is None or left_out in caplog.text)
        yield drained
