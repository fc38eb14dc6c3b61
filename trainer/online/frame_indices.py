"""Which frames of a perspective have come, in little memory: four bytes each."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

NEW_AT_MOST = 4096
"""Indices that are kept apart, each of which takes some seventy bytes, before they are sorted in."""


class FrameIndices:
    """A set of frame indices.

    Args:
        indices: those that are in it at first, (n,).
    """

    def __init__(self, indices: npt.ArrayLike = ()) -> None:
        self._sorted = np.unique(np.asarray(indices, np.int32))
        self._new: set[int] = set()

    def add(self, indices: npt.NDArray[np.int32]) -> None:
        """Add indices, (n,)."""
        self._new.update(indices.tolist())
        if len(self._new) > NEW_AT_MOST:
            self.sort_in()

    def fresh(self, indices: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        """Return (n,): which indices are not in it, and the first of those that are equal."""
        known = np.zeros(len(indices), bool)
        if len(self._sorted):
            places = np.searchsorted(self._sorted, indices)
            inside = places < len(self._sorted)
            known[inside] = self._sorted[places[inside]] == indices[inside]
        here: set[int] = set()
        for row in np.flatnonzero(~known).tolist():
            frame = int(indices[row])
            known[row] = frame in self._new or frame in here
            here.add(frame)
        return ~known

    def without(self, indices: set[int]) -> npt.NDArray[np.int32]:
        """Return those that are not among these, sorted, (m,)."""
        self.sort_in()
        if not indices:
            return self._sorted.copy()
        return np.setdiff1d(self._sorted, np.fromiter(indices, np.int32, len(indices)), assume_unique=True)

    def sort_in(self) -> None:
        """Take up little memory, as after the last of a perspective."""
        if self._new:
            new = np.fromiter(self._new, np.int32, len(self._new))
            self._sorted, self._new = np.union1d(self._sorted, new), set()
