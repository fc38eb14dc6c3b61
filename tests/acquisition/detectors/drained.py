"""What a connection delivers while a thread drains it, and what a decoder makes of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

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
