"""Stitching patches at sub-pixel positions into one growing image.

A patch pixel that lies between four pixels of the image is spread over them with bilinear weights, and the weights are
known for each pixel, so that the image is an exact weighted mean: a true zero counts like any other value.
Amplitudes are averaged as they are; phases are averaged as unit phasors, so that a wrap at ±π does not tear the image
and an error of the amplitude does not reach the phase.

The image's pixels lie at integer values of `position_px`. Pixel (N // 2, N // 2) of a patch lies at its position.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt

from ptychoflow.inference_edge.stitching.area import NOWHERE, Area, Changes
from ptychoflow.inference_edge.stitching.row_owners import ONE_OWNER, RowOwners
from ptychoflow.inference_edge.stitching.spreading import (
    LAYERS,
    LAYERS_WITHOUT_AMPLITUDE,
    add_patches,
    blank_canvas,
    draw_rows,
    weights,
)

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.int64]

MAX_CANVAS_PX = 1 << 26
MAX_GAP_PX = 8192
"""A patch farther than this from all before is a wrong position, not a large scan."""
GROWTH_MARGIN_PX = 32


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
class PlacedPatches:
    """Patches and where they lie, ready to be stitched into any number of mosaics; see `place_patches`."""

    amplitude: npt.NDArray[np.float32] | None
    """(n, y, x); None where it is 1 everywhere."""
    phase: npt.NDArray[np.float32]
    corners_px: IntArray
    """(n, 2), the integer position (y, x) on or behind which pixel (0, 0) of each lies."""
    beyond_px: npt.NDArray[np.float32]
    """(n, 2), how far behind, within [0, 1)."""

    def __len__(self) -> int:
        return len(self.corners_px)

    def select(self, chosen: npt.NDArray[np.bool_]) -> PlacedPatches:
        """Return the patches for which `chosen`, bool (n,), is true; itself where that is all of them."""
        if chosen.all():
            return self
        amplitude = None if self.amplitude is None else self.amplitude[chosen]
        return PlacedPatches(amplitude, self.phase[chosen], self.corners_px[chosen], self.beyond_px[chosen])

    @cached_property
    def extent(self) -> Area:
        """The smallest area that holds all pixels with a weight; there must be at least one patch."""
        top, left = self.corners_px.min(axis=0)
        ends = self.corners_px + self.phase.shape[1:] + (self.beyond_px > 0)
        bottom, right = ends.max(axis=0)
        return Area(int(top), int(left), int(bottom), int(right))


def crop_centre(patches: FloatArray, size_px: int | None) -> FloatArray:
    """Return the central `size_px` × `size_px` of patches (n, y, x), a view; all of it if None or not smaller.

    The pixel at the position stays the pixel at the position: (N // 2, N // 2) becomes (size_px // 2, size_px // 2).
    """
    if size_px is None:
        return patches
    height, width = (min(size_px, length) for length in patches.shape[-2:])
    top, left = patches.shape[-2] // 2 - height // 2, patches.shape[-1] // 2 - width // 2
    return patches[..., top : top + height, left : left + width]


def place_patches(
    amplitude: FloatArray | None, phase: FloatArray, positions_px: npt.NDArray[np.float64]
) -> PlacedPatches:
    """Find where patches lie on the integer grid.

    Args:
        amplitude: (n, y, x); None where it is 1 everywhere.
        phase: (n, y, x) in radians.
        positions_px: (n, 2) as (y, x), finite; where pixel (N // 2, N // 2) of each patch lies.
    """
    _, height, width = phase.shape
    exact_corners = positions_px - (height // 2, width // 2)
    # an integer but for rounding, below or above: a row of pixels that next to nothing covers
    least = float(np.finfo(np.float32).epsneg)
    corners = np.floor(exact_corners + least)
    beyond = (exact_corners - corners).astype(np.float32)
    beyond[beyond < least] = 0
    return PlacedPatches(
        None if amplitude is None else np.ascontiguousarray(amplitude, np.float32),
        np.ascontiguousarray(phase, np.float32),
        corners.astype(np.int64),
        beyond,
    )


class Mosaic:
    """An image stitched patch by patch; its extent need not be known in advance.

    Args:
        owners: threads that stitch and draw; the image does not depend on how many they are.
    """

    def __init__(self, owners: RowOwners = ONE_OWNER) -> None:
        self.frames = 0
        """Patches stitched so far."""
        self._owners = owners
        self._canvas = NOWHERE
        self._covered = NOWHERE
        self._added = blank_canvas(LAYERS_WITHOUT_AMPLITUDE, (0, 0))
        self._drawn = np.zeros((2, 0, 0), dtype=np.float32)
        self._undrawn = Changes()
        self._watching: list[Changes] = []
        self._finished: StitchedImage | None = None

    @property
    def covered(self) -> Area:
        """The smallest area that holds the image."""
        return self._covered

    def stitch(self, patches: PlacedPatches) -> int:
        """Stitch patches in, or have the threads do it: nobody may write to them any more. Any image holds them.

        Returns:
            How many were left out because no scan reaches where they lie: more than `MAX_GAP_PX` from all others, or
            so far that the image would have more than `MAX_CANVAS_PX` pixels.

        Raises:
            RuntimeError: the mosaic is finished.
        """
        if self._finished is not None:
            raise RuntimeError("a patch came for a mosaic that is finished")
        if not len(patches):
            return 0
        placed = patches if self._all_near(patches) else patches.select(self._within_reach(patches))
        if len(placed):
            self._stitch(placed)
        return len(patches) - len(placed)

    def watch(self) -> Changes:
        """Return what collects all changes from now on."""
        self._watching.append(Changes())
        return self._watching[-1]

    def image(self, area: Area | None = None) -> StitchedImage:
        """Return a copy of what was stitched so far, or of an `area` within `covered`; 0 × 0 px before anything was.

        Only what changed since the last call is computed.
        """
        if self._finished is not None:
            return self._finished if area is None else _cut(self._finished, area)
        self._draw(self._undrawn.pop())
        area = self._covered if area is None else area
        pixels = area.slices(self._canvas.origin_px)
        amplitude, phase = self._drawn[:, *pixels].copy()
        return StitchedImage(amplitude, phase, self._added.coverage[pixels].copy(), area.origin_px)

    def finish(self) -> None:
        """Keep the image and let go of the sums behind it, several times as large; nothing can be added any more."""
        self._finished = self.image()
        self._added = blank_canvas(0, (0, 0))
        self._drawn = np.zeros((2, 0, 0), dtype=np.float32)

    def _all_near(self, patches: PlacedPatches) -> bool:
        """Whether nothing needs to be looked at patch by patch, as usually."""
        if not (self._covered and self._covered.widened(MAX_GAP_PX).holds(patches.extent)):
            return False
        return self._covered.union(patches.extent).pixels <= MAX_CANVAS_PX

    def _within_reach(self, patches: PlacedPatches) -> npt.NDArray[np.bool_]:
        corners = patches.corners_px
        if self._covered:
            lower, upper = np.array(self._covered.origin_px), np.array((self._covered.bottom, self._covered.right))
        else:
            lower = upper = np.median(corners, axis=0).astype(np.int64)
        gaps = np.maximum(np.maximum(lower - corners, corners - upper), 0)
        reached: npt.NDArray[np.bool_] = (gaps <= MAX_GAP_PX).all(axis=1)
        if reached.any() and self._covered.union(patches.select(reached).extent).pixels > MAX_CANVAS_PX:
            reached &= (gaps == 0).all(axis=1)
        return reached

    def _stitch(self, patches: PlacedPatches) -> None:
        extent = patches.extent
        # the compiled loop also touches the row and the column behind, with weight 0 where the position is an integer
        self._make_room(Area(extent.top, extent.left, extent.bottom + 1, extent.right + 1))
        if patches.amplitude is not None and len(self._added.sums) < LAYERS:
            # so far they were 1 everywhere
            self._owners.settle()
            sums, coverage, borders = self._added
            self._added = self._added._replace(sums=np.concatenate([sums, weights(coverage, borders)[None]]))
        corners = patches.corners_px - self._canvas.origin_px
        amplitude = patches.phase[:0] if patches.amplitude is None else patches.amplitude
        self._owners.give(partial(add_patches, *self._added, amplitude, patches.phase, corners, patches.beyond_px))
        self.frames += len(patches)
        self._covered = self._covered.union(extent)
        for changes in (self._undrawn, *self._watching):
            changes.include(extent)

    def _draw(self, area: Area) -> None:
        rows, columns = ((pixels.start, pixels.stop) for pixels in area.slices(self._canvas.origin_px))
        self._owners.give(partial(draw_rows, *self._added, self._drawn, rows, columns))
        self._owners.settle()

    def _make_room(self, needed: Area) -> None:
        """Enlarge the canvas with a margin on the sides that need it, so that growing stays rare."""
        if self._canvas.holds(needed) and self._canvas:
            return
        self._owners.settle()
        old = self._canvas or Area(needed.top, needed.left, needed.top, needed.left)
        margin_y, margin_x = (max(GROWTH_MARGIN_PX, length // 2) for length in old.union(needed).shape_px)
        new = Area(
            needed.top - margin_y if needed.top < old.top else old.top,
            needed.left - margin_x if needed.left < old.left else old.left,
            needed.bottom + margin_y if needed.bottom > old.bottom else old.bottom,
            needed.right + margin_x if needed.right > old.right else old.right,
        )
        added = blank_canvas(len(self._added.sums), new.shape_px)
        drawn = np.full((2, *new.shape_px), np.nan, np.float32)
        kept = old.slices(new.origin_px)
        added.sums[:, *kept], added.coverage[kept], added.borders[kept] = self._added
        drawn[:, *kept] = self._drawn
        self._canvas, self._added, self._drawn = new, added, drawn


def _cut(image: StitchedImage, area: Area) -> StitchedImage:
    pixels = area.slices(image.origin_px)
    return StitchedImage(image.amplitude[pixels], image.phase[pixels], image.coverage[pixels], area.origin_px)


def bounding_box(area: npt.NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return the smallest box that holds the true pixels of `area` (y, x); an empty one where there are none."""
    if not area.any():
        return slice(0, 0), slice(0, 0)
    rows, columns = np.flatnonzero(area.any(axis=1)), np.flatnonzero(area.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
