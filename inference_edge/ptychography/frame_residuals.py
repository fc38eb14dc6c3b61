"""How badly frames of one rendering are explained, as they come: in numbers, and as a map."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from statistics import median

import numpy as np
import numpy.typing as npt

from ptychoflow.inference_edge.stitching.area import Area

WINDOW = 32
"""Frames of which the median is taken: a few that are bad in themselves do not change it."""
CELLS_IN_PATCH = 4


@dataclass(frozen=True)
class ResidualMap:
    """The mean residual of the frames whose patch lies over each cell, float32 (y, x); NaN where there is none."""

    values: npt.NDArray[np.float32]
    origin_px: tuple[int, int]
    """Position of the first cell's first pixel."""
    cell_px: int


class FrameResiduals:
    """Collects the residuals of frames in the order in which they were imaged."""

    def __init__(self) -> None:
        self.scored = 0
        """Frames with a residual."""
        self.worst: float | None = None
        """The largest that `newest` has been."""
        self._newest: deque[float] = deque(maxlen=WINDOW)
        self._positions_px = [np.zeros((0, 2))]
        self._values = [np.zeros(0)]
        self._patch_shape_px = (1, 1)

    @property
    def newest(self) -> float | None:
        """Median of the newest `WINDOW` residuals; None while there are fewer."""
        return median(self._newest) if len(self._newest) == WINDOW else None

    @property
    def middle(self) -> float:
        """Median of all; there must be some."""
        return float(np.median(self.values))

    @property
    def values(self) -> npt.NDArray[np.float64]:
        """All residuals, (n,)."""
        self._join()
        return self._values[0]

    @property
    def positions_px(self) -> npt.NDArray[np.float64]:
        """Of the frames, (n, 2) as (y, x)."""
        self._join()
        return self._positions_px[0]

    @property
    def patch_shape_px(self) -> tuple[int, int]:
        """Height and width of what is stitched of a frame."""
        return self._patch_shape_px

    def add(
        self,
        residuals: npt.NDArray[np.float64],
        positions_px: npt.NDArray[np.float64],
        *,
        patch_shape_px: tuple[int, int],
    ) -> None:
        """Take in frames (n,), NaN for those that were not scored, and where they lie, (n, 2)."""
        known = np.isfinite(residuals)
        if not known.any():
            return
        self.scored += int(known.sum())
        self._values.append(residuals[known])
        self._positions_px.append(positions_px[known])
        self._patch_shape_px = patch_shape_px
        self._newest.extend(residuals[known].tolist())
        if (newest := self.newest) is not None:
            self.worst = newest if self.worst is None else max(self.worst, newest)

    def map(self, area: Area) -> ResidualMap:
        """Return what the frames within `area` amount to over it."""
        cell = max(1, min(self._patch_shape_px) // CELLS_IN_PATCH)
        height, width = (-(-length // cell) for length in area.shape_px)
        shape = np.array((height, width))
        corners = self.positions_px - np.array(self._patch_shape_px) // 2 - area.origin_px
        first = np.round(corners / cell).astype(np.int64)
        last = np.maximum(np.round((corners + self._patch_shape_px) / cell).astype(np.int64), first + 1)
        inside = ((last > 0) & (first < shape)).all(axis=1)
        first, last = (np.clip(edge[inside], 0, shape) for edge in (first, last))
        sums, counts = (
            _summed_over(first, last, values, (height, width))
            for values in (self.values[inside], np.ones(int(inside.sum())))
        )
        covered = counts > 0.5
        values = np.where(covered, sums / np.where(covered, counts, 1.0), np.nan).astype(np.float32)
        return ResidualMap(values, area.origin_px, cell)

    def _join(self) -> None:
        self._values, self._positions_px = [np.concatenate(self._values)], [np.concatenate(self._positions_px)]


def _summed_over(
    first: npt.NDArray[np.int64],
    last: npt.NDArray[np.int64],
    values: npt.NDArray[np.float64],
    shape: tuple[int, int],
) -> npt.NDArray[np.float64]:
    """Add each value to all cells from `first` to before `last`, (n, 2): by what changes at the corners."""
    steps = np.zeros((shape[0] + 1, shape[1] + 1))
    for rows, sign_y in ((first[:, 0], 1), (last[:, 0], -1)):
        for columns, sign_x in ((first[:, 1], 1), (last[:, 1], -1)):
            np.add.at(steps, (rows, columns), sign_y * sign_x * values)
    return np.asarray(steps.cumsum(axis=0).cumsum(axis=1)[:-1, :-1])
