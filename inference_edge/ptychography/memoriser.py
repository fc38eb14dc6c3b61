"""What remembering alone makes of the held-out frames: the baseline that says what the network knows beyond it.

Each held-out frame gets the reference's patch under that kept frame which looks most alike; frames that nothing may
learn from are not asked.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from ptychoflow.inference_edge.ptychography.diffraction_block import DiffractionBlock
from ptychoflow.inference_edge.ptychography.most_alike import MostAlike
from ptychoflow.inference_edge.ptychography.perspective import Perspective
from ptychoflow.inference_edge.stitching.mosaic import Mosaic, crop_centre, place_patches
from ptychoflow.inference_edge.stitching.quality import ReferenceImage
from ptychoflow.streaming.messages import FrameRole

log = logging.getLogger(__name__)

COMPARISONS_MAX = 2e11
"""Products of two pixels: 20 s or so. Beyond, it is left out and said."""
LEARNT = (FrameRole.TRAIN, FrameRole.VALIDATION)
Positions = npt.NDArray[np.float64]


def remember_held_out(
    perspective: Perspective,
    kept: Sequence[Perspective],
    *,
    target_shape_px: tuple[int, int],
    patch_crop_px: int | None,
) -> Mosaic | None:
    """Stitch the held-out frames of a perspective as one who only remembers would. Blocks, for seconds.

    Args:
        perspective: its frames are kept.
        kept: perspectives whose frames are kept; those with a reference are remembered.
        target_shape_px: (y, x) of a patch.
        patch_crop_px: the central part of patches that is stitched.

    Returns:
        None if no frame is held out or none is remembered, or if there are too many to compare.
    """
    looked_for = [block.select(block.held_out) for block in perspective.blocks]
    looked_for = [block for block in looked_for if len(block)]
    stored = [_Stored(one, one.reference, target_shape_px) for one in kept if one.reference is not None and one.kept]
    counts = sum(map(len, looked_for)), sum(len(one.positions_px) for one in stored)
    if not all(counts):
        return None
    pixels = looked_for[0].diffraction[0].size
    if counts[0] * counts[1] * pixels > COMPARISONS_MAX:
        log.info("no memoriser: %d held-out frames are too many to compare with %d of %d pixels", *counts, pixels)
        return None
    mosaic = Mosaic()
    for block in looked_for:
        alike = MostAlike(block.diffraction)
        for number, one in enumerate(stored):
            one.compare(alike, number)
        found = [stored[number].patch(row) for number, row in alike.place]
        amplitude, phase, beyond_px = (np.stack(parts) for parts in zip(*found, strict=True))
        amplitude, phase = (crop_centre(channel, patch_crop_px) for channel in (amplitude, phase))
        mosaic.stitch(place_patches(amplitude, phase, block.position_px + beyond_px))
    return mosaic


class _Stored:
    """The frames of one perspective whose patch lies in its reference."""

    def __init__(self, perspective: Perspective, reference: ReferenceImage, shape_px: tuple[int, int]) -> None:
        self._reference, self._shape = reference, np.array(shape_px)
        self._origin = np.round(reference.origin_px)
        self._blocks = [self._usable(block) for block in perspective.blocks]
        self.positions_px: Positions = np.concatenate([block.position_px for block in self._blocks])
        """(n, 2) as (y, x)."""

    def compare(self, alike: MostAlike, number: int) -> None:
        """Store all frames; their place is `number` and the row of their position."""
        first = 0
        for block in self._blocks:
            rows = np.arange(first, first + len(block))
            alike.store(block.diffraction, np.stack([np.full(len(block), number), rows], axis=1))
            first += len(block)

    def patch(self, row: int) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating], Positions]:
        """Return amplitude and phase (y, x) on the reference's pixels, and how far behind the position they lie."""
        position = self.positions_px[row]
        rows, columns = self._area(position)
        amplitude, phase = self._reference.amplitude[rows, columns], self._reference.phase[rows, columns]
        return amplitude, phase, np.round(position) - position

    def _usable(self, block: DiffractionBlock) -> DiffractionBlock:
        learnt = np.isin(block.role, LEARNT)
        inside = np.array(list(self._inside(block.position_px)), bool)
        return block.select(learnt & inside)

    def _inside(self, positions_px: Positions) -> Iterator[bool]:
        """Yield whether all of the patch at a position is in the reference."""
        for position in positions_px:
            rows, columns = self._area(position)
            area = self._reference.phase[max(rows.start, 0) : rows.stop, max(columns.start, 0) : columns.stop]
            yield area.shape == tuple(self._shape) and bool(np.isfinite(area).all())

    def _area(self, position_px: Positions) -> tuple[slice, slice]:
        first = np.round(position_px).astype(int) - self._shape // 2 - self._origin.astype(int)
        rows, columns = (slice(start, start + length) for start, length in zip(first, self._shape, strict=True))
        return rows, columns
