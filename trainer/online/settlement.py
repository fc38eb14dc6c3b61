"""Which messages of the stream this rank may acknowledge."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable


class Settlement:
    """Follows messages from their arrival until they are done with. Thread-safe.

    A message is done with when its units, and those of all messages before it, are settled. A training sample is a
    unit, and so is the end of a perspective or of the scan; whatever is done with on arrival has none.

    Args:
        held: what is done with may be acknowledged only when it is released, by a checkpoint that holds it.
    """

    def __init__(self, *, held: bool) -> None:
        self._held = held
        self._arrived_units = 0
        self._settled_units = 0
        self._open: deque[tuple[int, int]] = deque()
        self._released: list[int] = []
        self._lock = threading.Lock()

    def expect(self, units: int) -> None:
        """Note units that have arrived."""
        with self._lock:
            self._arrived_units += units

    def close(self, sequence: int) -> None:
        """Note the end of a message, whose units have been noted."""
        with self._lock:
            self._open.append((self._arrived_units, sequence))

    def settle(self, units: int) -> None:
        """Note that the next units, in the order of their arrival, are done with."""
        with self._lock:
            self._settled_units += units

    def cover(self) -> list[int]:
        """Return the messages that are done with, each once; `release` them when a checkpoint holds them."""
        with self._lock:
            return self._pop_settled()

    def release(self, sequences: Iterable[int]) -> None:
        """Let these messages be acknowledged."""
        with self._lock:
            self._released.extend(sequences)

    def release_all(self) -> None:
        """Let everything that is done with be acknowledged as soon as it is: there will be no more checkpoints."""
        with self._lock:
            self._held = False

    def acknowledgeable(self) -> list[int]:
        """Return the messages that may be acknowledged, each once."""
        with self._lock:
            released, self._released = self._released, []
            return released if self._held else released + self._pop_settled()

    def _pop_settled(self) -> list[int]:
        done: list[int] = []
        while self._open and self._open[0][0] <= self._settled_units:
            done.append(self._open.popleft()[1])
        return done
