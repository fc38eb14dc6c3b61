"""What a residual says about the error: learned from frames over which there is a reference."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ptychoflow.inference_edge.ptychography.frame_residuals import FrameResiduals
from ptychoflow.inference_edge.stitching.quality import Comparison

LEAST_FRAMES = 48
LEAST_CORRELATION = 0.3
"""Below this, residuals do not tell good frames from bad ones, and no error is said."""
FRAMES_OF_AN_IMAGE = 512
IMAGES_KEPT = 16
SMALLEST = 1e-9
Pairs = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Calibration:
    """A power law from residuals to errors: error = factor · residual ** exponent, as far as residuals went."""

    frames: int
    images: int
    """Stitched images that the frames are from."""
    correlation: float
    """Spearman's, of residual and error."""
    exponent: float
    factor_rad: float
    spread: float
    """Errors are within this factor of the law for two frames in three."""
    range: tuple[float, float]
    """Smallest and largest residual that it was learned from."""

    @property
    def usable(self) -> bool:
        """Whether there are frames enough, and a larger residual goes with a larger error."""
        return self.frames >= LEAST_FRAMES and self.correlation >= LEAST_CORRELATION and self.exponent > 0

    def error_rad(self, residuals: npt.NDArray[np.float64]) -> float:
        """Return the root mean square phase error that frames with these residuals (n,) have; there must be some.

        Residuals beyond those that it was learned from count as the nearest of them.
        """
        errors = self.factor_rad * np.clip(residuals, *self.range) ** self.exponent
        return float(np.sqrt(np.mean(errors**2)))


class Calibrator:
    """Keeps pairs of residual and error of the newest images that have a reference."""

    def __init__(self) -> None:
        self.current: Calibration | None = None
        """None before there is a pair."""
        self._pairs: OrderedDict[Hashable, Pairs] = OrderedDict()

    def learn(self, image: Hashable, residuals: FrameResiduals, comparison: Comparison) -> None:
        """Take in an image, in place of what it was before."""
        errors_rad = local_errors_rad(residuals.positions_px, residuals.patch_shape_px, comparison)
        known = np.flatnonzero(np.isfinite(errors_rad) & (errors_rad > 0) & (residuals.values > SMALLEST))
        known = known[:: max(1, -(-len(known) // FRAMES_OF_AN_IMAGE))]
        self._pairs.pop(image, None)
        self._pairs[image] = residuals.values[known], errors_rad[known]
        while len(self._pairs) > IMAGES_KEPT:
            self._pairs.popitem(last=False)
        self.current = self._fit()

    def _fit(self) -> Calibration | None:
        residuals, errors_rad = (np.concatenate(parts) for parts in zip(*self._pairs.values(), strict=True))
        if len(residuals) < 3 or np.ptp(residuals) == 0 or np.ptp(errors_rad) == 0:
            return None
        x, y = np.log(residuals), np.log(errors_rad)
        exponent, constant = np.polyfit(x, y, 1)
        return Calibration(
            frames=len(residuals),
            images=sum(len(pairs[0]) > 0 for pairs in self._pairs.values()),
            correlation=rank_correlation(residuals, errors_rad),
            exponent=float(exponent),
            factor_rad=float(np.exp(constant)),
            spread=float(np.exp(np.std(y - exponent * x - constant))),
            range=(float(residuals.min()), float(residuals.max())),
        )


def rank_correlation(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> float:
    """Return Spearman's rank correlation of two (n,) whose values are not all the same.

    `scipy.stats` has it too, and takes a sixth of the time in which an edge starts to load.
    """
    return float(np.corrcoef(_ranks(first), _ranks(second))[0, 1])


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the rank of each value; equal ones share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place])


def local_errors_rad(
    positions_px: npt.NDArray[np.float64], patch_shape_px: tuple[int, int], comparison: Comparison
) -> npt.NDArray[np.float64]:
    """Return the root mean square phase error of the image under each frame's patch, (n,); NaN where none is known."""
    squares = np.where(comparison.area, (comparison.phase - comparison.reference_phase) ** 2, 0.0)
    shape = np.array(comparison.area.shape)
    first = np.round(positions_px).astype(np.int64) - np.array(patch_shape_px) // 2 - comparison.origin_px
    first, last = np.clip(first, 0, shape), np.clip(first + patch_shape_px, 0, shape)
    sums, pixels = (_sums_within(values, first, last) for values in (squares, comparison.area.astype(np.float64)))
    known = pixels > 0.5
    return np.where(known, np.sqrt(np.maximum(sums, 0.0) / np.where(known, pixels, 1.0)), np.nan)


def _sums_within(
    values: npt.NDArray[np.float64], first: npt.NDArray[np.int64], last: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Return the sum over each rectangle, by four corners of the running sums."""
    running = np.zeros((values.shape[0] + 1, values.shape[1] + 1))
    running[1:, 1:] = values.cumsum(axis=0).cumsum(axis=1)
    (top, left), (bottom, right) = first.T, last.T
    return np.asarray(running[bottom, right] - running[top, right] - running[bottom, left] + running[top, left])
