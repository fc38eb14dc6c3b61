"""What came from a source, as it came."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Bytes = bytes | bytearray | memoryview


class Message(NamedTuple):
    """What came from one source at one time."""

    source: int
    """Index into the names of the sources, or `DROPPED`, `LISTENING` or `STOPPED`."""
    received_at_s: float
    parts: Sequence[Bytes]
    """As they are read, mapped from the file: who keeps one holds no memory of its own."""


@dataclass(frozen=True)
class Run:
    """Messages of one source, one after the other."""

    source: int
    """See `Message.source`."""
    received_at_s: npt.NDArray[np.float64]
    """(messages,)."""
    window: memoryview
    """Of the file."""
    parts: npt.NDArray[np.int64]
    """(messages,), how many each has."""
    bounds: npt.NDArray[np.int64]
    """(parts + 1,), where each part begins in the window, and where the last one ends."""

    def __len__(self) -> int:
        return len(self.parts)

    def messages(self) -> Iterator[Message]:
        """Yield them."""
        bounds = self.bounds.tolist()
        pieces = (self.window[begin:end] for begin, end in pairwise(bounds))
        for received_at_s, count in zip(self.received_at_s.tolist(), self.parts.tolist(), strict=True):
            yield Message(self.source, received_at_s, tuple(islice(pieces, count)))

    def part(self, start: int, stop: int) -> Run:
        """Return messages start to stop."""
        first, last = int(self.parts[:start].sum()), int(self.parts[:stop].sum())
        return Run(
            self.source,
            self.received_at_s[start:stop],
            self.window,
            self.parts[start:stop],
            self.bounds[first : last + 1],
        )
