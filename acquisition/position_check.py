"""Positions that cannot be right: ends that were never written, single ones far away, units that do not fit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

Positions = npt.NDArray[np.float64]
Which = npt.NDArray[np.bool_]

LEAST_TAIL = 2
FAR = 10.0
"""An outlier is so many times as far from the middle as nine positions of ten are."""
FAR_SHARE = 90
MOST_OUTLIERS = 0.1
"""If more of the positions stand apart than this, they are no outliers."""
REACH_FIELDS = 64
"""So many fields of view beyond all positions so far, and beyond as far as these span, nothing is of the same scan."""
LEAST_STEP_PX = 0.1
LEAST_EXTENT_PX = 2.0
LEAST_FOR_AREA = 9
"""Fewer positions may lie along a line."""
LARGEST_CANVAS_PX = 2**30
"""Pixels of the object image: 8 GiB."""
FACTORS = {
    1e-9: "given in nm and read as m",
    1e-6: "given in µm and read as m",
    1e-3: "given in mm and read as m, or µm as mm",
    1e3: "read as µm but given in mm, or as mm but given in m",
    1e6: "read as µm but given in m, or as nm but given in mm",
    1e9: "read as nm but given in m",
}
"""Mistakes of units by the factor that corrects them."""
USUAL_STEP_SHARE = (0.005, 0.5)
"""Of the field of view, between neighbouring positions of usual scans."""


def unwritten_tail(values: Positions) -> int:
    """Return how many positions (n, 2) at the end were never written: not finite, or all exactly zero."""
    missing = np.asarray(~np.isfinite(values).all(axis=1))
    zero = (values == 0).all(axis=1)
    for empty in (np.asarray(missing), np.asarray(missing | zero)):
        tail = int(np.argmin(empty[::-1])) if not empty.all() else 0
        if tail >= LEAST_TAIL or (tail and missing[-1]):
            return tail
    return 0


def outliers(positions_px: Positions, field_px: float) -> Which:
    """Return which positions (n, 2) stand apart from all others, bool (n,): farther away than anything they could show.

    None where so many do that the scan itself looks like that.
    """
    apart = np.zeros(len(positions_px), bool)
    if len(positions_px) < 3 or not np.isfinite(positions_px).all():
        return apart
    nearest, _ = KDTree(positions_px).query(positions_px, k=2)
    apart |= nearest[:, 1] > field_px
    away = np.abs(positions_px - np.median(positions_px, axis=0)).max(axis=1)
    apart |= away > FAR * np.percentile(away, FAR_SHARE) + field_px
    few = max(1, int(MOST_OUTLIERS * len(positions_px)))
    return apart if apart.sum() <= few else np.zeros_like(apart)


class Reach:
    """Where a scan that is still coming may go on: around the positions that have come.

    Args:
        field_px: the larger side of a frame's field of view, in object pixels.
    """

    def __init__(self, field_px: float) -> None:
        self._field_px = field_px
        self._lower, self._upper = np.full(2, np.inf), np.full(2, -np.inf)

    def holds(self, positions_px: Positions) -> Which:
        """Return which positions (n, 2) are within reach, bool (n,); from then on it is around these too.

        The first ones all are.
        """
        extent_px = self._upper - self._lower
        if np.isfinite(extent_px).all():
            beyond_px = np.maximum(self._lower - positions_px, positions_px - self._upper).max(axis=1)
            inside = np.asarray(beyond_px <= max(REACH_FIELDS * self._field_px, float(extent_px.max())))
        else:
            inside = np.ones(len(positions_px), bool)
        if inside.any():
            self._lower = np.minimum(self._lower, positions_px[inside].min(axis=0))
            self._upper = np.maximum(self._upper, positions_px[inside].max(axis=0))
        return inside


def step_px(positions_px: Positions) -> float | None:
    """Return the median distance from a finite position to the nearest other one; None if all are at one place."""
    places = np.unique(positions_px[np.isfinite(positions_px).all(axis=1)], axis=0)
    if len(places) < 2:
        return None
    distances, _ = KDTree(places).query(places, k=2)
    return float(np.median(distances[:, 1]))


def line_note(positions_px: Positions) -> str | None:
    """Return in words that positions (n, 2) lie along a line, of which there is no image; None if they do not."""
    extent = np.ptp(positions_px, axis=0)
    if len(positions_px) < LEAST_FOR_AREA or extent.min() >= LEAST_EXTENT_PX:
        return None
    name, other = ("y", "x") if extent[0] < extent[1] else ("x", "y")
    return (
        f"All positions lie along one line: {name} spans {extent.min():.2g} object pixels, {other} {extent.max():.3g}. "
        f"If another column of the positions is {name}, name both with source.positions (column_y, column_x)"
    )


def is_scrap(positions_px: Positions) -> bool:
    """Whether finite positions (n, 2) are those of a scan that was broken off before it showed anything."""
    few = 0 < len(positions_px) < LEAST_FOR_AREA
    return few and bool(np.isfinite(positions_px).all()) and np.ptp(positions_px, axis=0).max() < LEAST_EXTENT_PX


def what_is_wrong(positions_px: Positions, frame_shape_px: tuple[int, int]) -> str | None:
    """Return in words why finite positions (n, 2) cannot be those of a far-field scan; None if they can."""
    step = step_px(positions_px)
    if step is None:
        return None
    field_px = max(frame_shape_px)
    extent = np.ptp(positions_px, axis=0)
    places = len(np.unique(positions_px, axis=0))
    # A fly scan may have many frames along a line, so what counts is the area that each one adds.
    spacing = max(float(np.sqrt(np.prod(extent) / places)), float(extent.max()) / places)
    if extent.max() < LEAST_EXTENT_PX or spacing < LEAST_STEP_PX:
        return (
            f"neighbouring positions are only {step:.3g} object pixels apart and all of them lie within "
            f"{extent.max():.3g}, which shows nothing; check their unit" + _likely(step, field_px)
        )
    if step > field_px:
        return (
            f"unsupported geometry: neighbouring positions are {step:.3g} object pixels apart but a far-field frame "
            f"covers {field_px}, so nothing overlaps; check units, or is this a near-field scan?"
            + _likely(step, field_px)
        )
    canvas = np.prod(extent + frame_shape_px)
    if canvas > LARGEST_CANVAS_PX:
        return (
            f"the positions span {extent[0]:.3g} × {extent[1]:.3g} object pixels, an image of "
            f"{canvas * 8 / 2**30:.3g} GiB; check them, and leave out what is wrong with source.drop_frames"
        )
    return None


def _likely(step: float, field_px: int) -> str:
    lowest, highest = (share * field_px for share in USUAL_STEP_SHARE)
    for factor, meaning in FACTORS.items():
        if lowest <= step * factor <= highest:
            return (
                f" (if they are {meaning}, it is {step * factor:.3g} pixels: "
                f"--set source.preprocess.position_scale={factor:g})"
            )
    return ""
