"""Tables of bounded size whose rows know when they changed."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

KeyT = TypeVar("KeyT")
RowT = TypeVar("RowT")
FigureT = TypeVar("FigureT")

PERSPECTIVES_KEPT = 10_000
"""The newest so many perspectives are remembered one by one."""
LARGEST_FIGURE = 1e30
TEXT_KEPT = 2000
"""Characters of a text from a part."""


class Rows(Generic[KeyT, RowT]):
    """Rows by key, each with the number of the event that changed it last.

    Args:
        kept: how many at most.
        by_key: whether the row with the smallest key goes first, and not the one that changed longest ago.
    """

    def __init__(self, kept: int, *, by_key: bool = False) -> None:
        self.undone_at = 0
        """Number of the event that took rows back last; who has seen no later one must begin anew."""
        self.forgotten = 0
        """Rows that were let go because there were too many."""
        self._kept, self._by_key = kept, by_key
        self._smallest: list[Any] = []
        """A heap of the keys, also of some that are gone."""
        self._rows: dict[KeyT, tuple[RowT, int]] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._rows)

    def get(self, key: KeyT) -> RowT | None:
        """Return the row of a key, or None."""
        found = self._rows.get(key)
        return None if found is None else found[0]

    def put(self, key: KeyT, row: RowT, *, event: int) -> None:
        """Set the row of a key."""
        if self._rows.pop(key, None) is None and self._by_key:
            heapq.heappush(self._smallest, key)
        self._rows[key] = (row, event)
        if len(self._rows) > self._kept:
            self.forgotten += 1
            del self._rows[self._first_to_go()]

    def _first_to_go(self) -> KeyT:
        if not self._by_key:
            return next(iter(self._rows))
        key: KeyT = heapq.heappop(self._smallest)
        while key not in self._rows:
            key = heapq.heappop(self._smallest)
        return key

    def all(self) -> list[RowT]:
        """Return all rows, the one that changed last at the end."""
        return [row for row, _ in self._rows.values()]

    def since(self, event: int) -> list[RowT]:
        """Return the rows that changed after an event; all of them if rows were taken back after it."""
        return [row for row, changed in self._rows.values() if changed > event or self.undone_at > event]

    def undo(self, is_void: Callable[[RowT], bool], *, event: int) -> None:
        """Take back the rows that are void."""
        kept = {key: (row, changed) for key, (row, changed) in self._rows.items() if not is_void(row)}
        if len(kept) < len(self._rows):
            self._rows, self.undone_at = kept, event


class Distinct:
    """Counts how many different numbers there were; it forgets which after the newest few thousand."""

    KEPT = 4096

    def __init__(self) -> None:
        self.count = 0
        self._seen: dict[int, None] = {}

    def add(self, number: int) -> None:
        """Take in a number."""
        if number in self._seen:
            return
        self.count += 1
        self._seen[number] = None
        if len(self._seen) > self.KEPT:
            del self._seen[next(iter(self._seen))]


def shortened(text: str) -> str:
    """Return a text as it is kept."""
    return text if len(text) <= TEXT_KEPT else text[:TEXT_KEPT] + " …"


def newest_of(figures: Mapping[KeyT, FigureT], kept: int) -> dict[KeyT, FigureT]:
    """Return the entries of the largest keys, in order."""
    return {key: figures[key] for key in sorted(figures)[-kept:]}  # type: ignore[type-var]


def is_figure(value: float) -> bool:
    """Return whether a value is finite, and small enough to be summed and drawn."""
    return math.isfinite(value) and abs(value) <= LARGEST_FIGURE


def mean(figures: Iterable[float | None]) -> float | None:
    """Return the mean of what is known, or None where nothing is or a value is no figure."""
    known = [one for one in figures if one is not None]
    return math.fsum(known) / len(known) if known and all(map(is_figure, known)) else None
