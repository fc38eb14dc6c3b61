"""Repeated exposures: frames that were taken at one place of the scan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

Positions = npt.NDArray[np.float64]

SAME_PLACE_PX = 0.1
"""Positions that are read back differ a little from exposure to exposure; what differs by less shows no difference."""


@dataclass(frozen=True)
class Places:
    """The places of a scan, in the order in which they were first exposed."""

    of_frame: npt.NDArray[np.intp]
    """(n,), the place of each frame."""
    first: npt.NDArray[np.intp]
    """(places,), the first frame at each; indices grow."""

    @property
    def repeats(self) -> int:
        """How many frames are at a place that another one was at before."""
        return len(self.of_frame) - len(self.first)

    def average_positions(self, positions_px: Positions) -> Positions:
        """Return the mean position (places, 2) of the exposures of each place."""
        sums = [np.bincount(self.of_frame, axis_px, len(self.first)) for axis_px in positions_px.T]
        return np.stack(sums, axis=1) / self._exposures[:, np.newaxis]

    def average_frames(self, frames: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
        """Return the mean frame (places, y, x) of the exposures of each place."""
        means = np.zeros((len(self.first), *frames.shape[1:]), np.float32)
        for frame, place in zip(frames, self.of_frame, strict=True):
            means[place] += frame
        means /= self._exposures[:, np.newaxis, np.newaxis].astype(np.float32)
        return means

    @property
    def _exposures(self) -> npt.NDArray[np.intp]:
        return np.bincount(self.of_frame, minlength=len(self.first))


def find_places(positions_px: Positions) -> Places:
    """Return the places of finite positions (n, 2): a frame is at that of the first one within `SAME_PLACE_PX`."""
    tree = KDTree(positions_px)
    of_frame = np.full(len(positions_px), -1, np.intp)
    first: list[int] = []
    for frame, position_px in enumerate(positions_px):
        if of_frame[frame] < 0:
            near = np.array(tree.query_ball_point(position_px, SAME_PLACE_PX))
            of_frame[near[of_frame[near] < 0]] = len(first)
            first.append(frame)
    return Places(of_frame, np.array(first, np.intp))
