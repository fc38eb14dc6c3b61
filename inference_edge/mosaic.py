"""Stitching patches at sub-pixel positions into one growing image.

A patch pixel that lies between four pixels of the image is spread over them with bilinear weights, and the weights are
summed on a canvas of their own, so that the image is an exact weighted mean: a true zero counts like any other value.
Amplitudes are averaged as they are; phases are averaged as unit phasors, so that a wrap at ±π does not tear the image
and an error of the amplitude does not reach the phase.

The image's pixels lie at integer values of `position_px`. Pixel (N // 2, N // 2) of a patch lies at its position.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streaming.errors import UserError

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.int64]

MAX_CANVAS_PX = 1 << 26
GROWTH_MARGIN_PX = 32
AMPLITUDE, COSINE, SINE, WEIGHT = range(4)


@dataclass(frozen=True)
class StitchedImage:
    """A stitched image and how many frames cover each of its pixels.

    `amplitude` and `phase` (radians within ±π) are float32 (y, x), NaN where nothing covers the pixel; `coverage` is
    int32 (y, x). Pixel (i, j) shows the object at position `origin_px + (i, j)`.
    """

    amplitude: npt.NDArray[np.float32]
    phase: npt.NDArray[np.float32]
    coverage: npt.NDArray[np.int32]
    origin_px: tuple[int, int]


@dataclass(frozen=True)
class SpreadPatches:
    """Patches spread over the integer grid, ready to be added to any number of mosaics.

    `corners_px` int64 (n, 2) is where pixel (0, 0) of each goes; `layers` float32 (n, 4, y + 1, x + 1) holds
    weight × amplitude, weight × cos(phase), weight × sin(phase) and the weight itself.
    """

    corners_px: IntArray
    layers: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.corners_px)

    def select(self, chosen: npt.NDArray[np.bool_]) -> SpreadPatches:
        """Return the patches for which `chosen`, bool (n,), is true."""
        return SpreadPatches(self.corners_px[chosen], self.layers[chosen])


def crop_centre(patches: FloatArray, size_px: int | None) -> FloatArray:
    """Return the central `size_px` × `size_px` of patches (n, y, x), a view; all of it if None or not smaller.

    The pixel at the position stays the pixel at the position: (N // 2, N // 2) becomes (size_px // 2, size_px // 2).
    """
    if size_px is None:
        return patches
    height, width = (min(size_px, length) for length in patches.shape[-2:])
    top, left = patches.shape[-2] // 2 - height // 2, patches.shape[-1] // 2 - width // 2
    return patches[..., top : top + height, left : left + width]


def spread_patches(amplitude: FloatArray, phase: FloatArray, positions_px: npt.NDArray[np.float64]) -> SpreadPatches:
    """Spread patches over the integer grid with bilinear weights.

    Args:
        amplitude: (n, y, x).
        phase: (n, y, x) in radians.
        positions_px: (n, 2) as (y, x), finite; where pixel (N // 2, N // 2) of each patch lies.
    """
    count, height, width = amplitude.shape
    exact_corners = positions_px - (height // 2, width // 2)
    corners = np.floor(exact_corners)
    beyond = (exact_corners - corners)[:, :, None, None, None]
    near, far = (1 - beyond).astype(np.float32), beyond.astype(np.float32)
    layers = np.zeros((count, 4, height + 1, width + 1), dtype=np.float32)
    inner = layers[:, :, :-1, :-1]
    inner[:, AMPLITUDE], inner[:, WEIGHT] = amplitude, 1
    np.cos(phase, out=inner[:, COSINE], casting="same_kind")
    np.sin(phase, out=inner[:, SINE], casting="same_kind")
    down = far[:, 0] * layers[:, :, :-1]
    layers *= near[:, 0]
    layers[:, :, 1:] += down
    right = far[:, 1] * layers[:, :, :, :-1]
    layers *= near[:, 1]
    layers[:, :, :, 1:] += right
    return SpreadPatches(corners.astype(np.int64), layers)


class Mosaic:
    """An image stitched patch by patch; its extent need not be known in advance."""

    def __init__(self) -> None:
        self.frames = 0
        """Patches added so far."""
        self._origin: IntArray = np.zeros(2, dtype=np.int64)
        self._sums = np.zeros((4, 0, 0), dtype=np.float64)
        self._coverage = np.zeros((0, 0), dtype=np.int32)
        self._finished: StitchedImage | None = None

    def add(self, patches: SpreadPatches) -> None:
        """Add patches.

        Raises:
            UserError: the positions span an area that no scan has; they are probably in another unit.
            RuntimeError: the mosaic is finished.
        """
        if self._finished is not None:
            raise RuntimeError("a patch came for a mosaic that is finished")
        if not len(patches):
            return
        height, width = patches.layers.shape[-2:]
        end = patches.corners_px.max(axis=0) + np.array((height, width))
        self._make_room(patches.corners_px.min(axis=0), end)
        for (top, left), layers in zip(patches.corners_px - self._origin, patches.layers, strict=True):
            area = slice(top, top + height), slice(left, left + width)
            self._sums[:, *area] += layers
            self._coverage[area] += layers[WEIGHT] > 0
        self.frames += len(patches)

    def image(self) -> StitchedImage:
        """Return the image of what was added so far, as small as holds it; 0 × 0 pixels before anything was added."""
        if self._finished is not None:
            return self._finished
        box = bounding_box(self._coverage > 0)
        amplitude_sum, cosine_sum, sine_sum, weight = self._sums[:, *box]
        coverage = self._coverage[box].copy()
        covered = coverage > 0
        amplitude, phase = np.full((2, *coverage.shape), np.nan, dtype=np.float32)
        amplitude[covered] = amplitude_sum[covered] / weight[covered]
        phase[covered] = np.arctan2(sine_sum[covered], cosine_sum[covered])
        origin_px = int(self._origin[0]) + box[0].start, int(self._origin[1]) + box[1].start
        return StitchedImage(amplitude, phase, coverage, origin_px)

    def finish(self) -> None:
        """Keep the image and let go of the sums behind it, several times as large; nothing can be added any more."""
        self._finished = self.image()
        self._sums, self._coverage = np.zeros((4, 0, 0)), np.zeros((0, 0), dtype=np.int32)

    def _make_room(self, lower: IntArray, upper: IntArray) -> None:
        """Enlarge the canvas with a margin on the sides that need it, so that growing stays rare."""
        old_lower, old_upper = self._origin, self._origin + self._coverage.shape
        if not self.frames:
            old_lower, old_upper = lower, lower
        margin = np.maximum(GROWTH_MARGIN_PX, (upper - lower) // 4)
        new_lower = np.where(lower < old_lower, lower - margin, old_lower)
        new_upper = np.where(upper > old_upper, upper + margin, old_upper)
        shape = new_upper - new_lower
        if np.array_equal(shape, self._coverage.shape):
            return
        if np.prod(shape.astype(float)) > MAX_CANVAS_PX:
            raise UserError(
                f"stitching: the scan positions span {shape[0]} × {shape[1]} object pixels, too large for one image; "
                "check the unit and scale of the positions in the source settings"
            )
        sums, coverage = np.zeros((4, *shape)), np.zeros(shape, dtype=np.int32)
        (top, left), (height, width) = old_lower - new_lower, old_upper - old_lower
        kept = slice(top, top + height), slice(left, left + width)
        sums[:, *kept], coverage[kept] = self._sums, self._coverage
        self._origin, self._sums, self._coverage = new_lower, sums, coverage


def bounding_box(area: npt.NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return the smallest box that holds the true pixels of `area` (y, x); an empty one where there are none."""
    if not area.any():
        return slice(0, 0), slice(0, 0)
    rows, columns = np.flatnonzero(area.any(axis=1)), np.flatnonzero(area.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
