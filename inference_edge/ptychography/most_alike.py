"""Which of some stored frames looks most like another one.

Frames are compared by the Euclidean distance of the square roots of their counts, whose noise is the same everywhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

CHUNK_BYTES = 64 << 20
"""Of the frames that are compared with all others at a time."""


class MostAlike:
    """For each of some frames, where the stored one is that looks most alike.

    Args:
        frames: counts (n, y, x).
    """

    def __init__(self, frames: npt.NDArray[Any]) -> None:
        self._looked_for = _features(frames)
        self._distance = np.full(len(frames), np.inf)
        self.place: npt.NDArray[np.int64] = np.full((len(frames), 2), -1)
        """(n, 2) of what `store` was told; -1 while nothing is stored."""

    def store(self, frames: npt.NDArray[Any], place: npt.NDArray[np.int64]) -> None:
        """Compare with counts (m, y, x), of which `place` (m, 2) says where they are."""
        at_once = max(1, CHUNK_BYTES // (8 * self._looked_for.shape[1]))
        for first in range(0, len(frames), at_once):
            self._compare(frames[first : first + at_once], place[first : first + at_once])

    def _compare(self, frames: npt.NDArray[Any], place: npt.NDArray[np.int64]) -> None:
        stored = _features(frames)
        # |a - b|² without |a|², which does not change the order
        distance = (stored**2).sum(axis=1) - 2.0 * self._looked_for @ stored.T
        best = distance.argmin(axis=1)
        found = distance[np.arange(len(best)), best]
        nearer = found < self._distance
        self._distance[nearer] = found[nearer]
        self.place[nearer] = place[best[nearer]]


def _features(frames: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return np.sqrt(frames.reshape(len(frames), -1).astype(np.float64))
