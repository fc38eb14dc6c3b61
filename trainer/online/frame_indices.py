"""Which frames of a perspective have come, in little memory: eight bytes for each unbroken run of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

NEW_AT_MOST = 4096
"""Indices that are kept apart, each of which takes some seventy bytes, before they are sorted in."""

Runs = npt.NDArray[np.int32]
"""First and last index of each unbroken run, (runs, 2)."""


class FrameIndices:
    """A set of frame indices.

    Args:
        runs: those that are in it at first, in any order.
    """

    def __init__(self, runs: Runs | None = None) -> None:
        self._runs = _joined(np.empty((0, 2), np.int32) if runs is None else runs)
        self._new: set[int] = set()

    def add(self, indices: npt.NDArray[np.int32]) -> None:
        """Add indices, (n,)."""
        self._new.update(indices.tolist())
        if len(self._new) > NEW_AT_MOST:
            self.sort_in()

    def fresh(self, indices: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        """Return (n,): which indices are not in it, and the first of those that are equal."""
        known = np.zeros(len(indices), bool)
        if len(self._runs):
            places = np.searchsorted(self._runs[:, 0], indices, side="right") - 1
            known = (places >= 0) & (indices <= self._runs[places, 1])
        here: set[int] = set()
        for row in np.flatnonzero(~known).tolist():
            frame = int(indices[row])
            known[row] = frame in self._new or frame in here
            here.add(frame)
        return ~known

    def without(self, indices: set[int]) -> Runs:
        """Return the runs of those that are not among these, sorted."""
        self.sort_in()
        if not indices:
            return self._runs.copy()
        removed = np.fromiter(indices, np.int32, len(indices))
        return runs_of(np.setdiff1d(indices_in(self._runs), removed, assume_unique=True))

    def sort_in(self) -> None:
        """Take up little memory, as after the last of a perspective."""
        if self._new:
            new = runs_of(np.sort(np.fromiter(self._new, np.int32, len(self._new))))
            self._runs, self._new = _joined(np.concatenate([self._runs, new])), set()


def runs_of(indices: npt.NDArray[np.int32]) -> Runs:
    """Return the runs of sorted indices, (n,), of which no two are equal."""
    begins = np.flatnonzero(np.diff(indices, prepend=indices[:1] - 2) != 1)
    ends = np.append(begins[1:], len(indices))[: len(begins)] - 1
    return np.stack([indices[begins], indices[ends]], axis=1)


def indices_in(runs: Runs) -> npt.NDArray[np.int32]:
    """Return all indices of runs, (n,)."""
    lengths = runs[:, 1].astype(np.int64) - runs[:, 0] + 1
    starts = runs[:, 0] - np.concatenate([[0], np.cumsum(lengths)[:-1]]) if len(runs) else np.empty(0)
    return (np.repeat(starts, lengths) + np.arange(lengths.sum())).astype(np.int32)


def _joined(runs: Runs) -> Runs:
    """Return runs in order, those that touch or overlap as one."""
    runs = runs[np.argsort(runs[:, 0], kind="stable")]
    if not len(runs):
        return runs
    reach = np.maximum.accumulate(runs[:, 1])
    begins = np.flatnonzero(np.append(True, runs[1:, 0].astype(np.int64) > reach[:-1].astype(np.int64) + 1))
    return np.stack([runs[begins, 0], reach[np.append(begins[1:], len(runs)) - 1]], axis=1)
