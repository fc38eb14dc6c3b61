"""Scores of a perspective's stitched images, each beside the score of the constant prediction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ptychoflow.inference_edge.ptychography.memoriser import remember_held_out
from ptychoflow.inference_edge.ptychography.model import ConstantPatch, Model
from ptychoflow.inference_edge.ptychography.perspective import Perspective
from ptychoflow.inference_edge.stitching.mosaic import Mosaic, crop_centre, place_patches
from ptychoflow.inference_edge.stitching.quality import ReferenceImage, compare, measure
from ptychoflow.streaming.events import HeldOutScores, MosaicKind, PerspectiveScores, Quality

STITCHED_AT_ONCE = 64


class Scorer:
    """Scores against the reference over the area that at least `min_coverage` frames cover.

    The constant prediction is the training mean of the newest weights, stitched at the same positions.
    """

    def __init__(self, *, min_coverage: int, patch_crop_px: int | None) -> None:
        self._min_coverage = min_coverage
        self._patch_crop_px = patch_crop_px
        self._constants: dict[int, tuple[tuple[int, int], Quality | None]] = {}

    def score(self, perspective: Perspective, kind: MosaicKind, model: Model) -> PerspectiveScores | None:
        """Score one image; None without a reference, or where quality is not defined."""
        if perspective.reference is None:
            return None
        rendering = perspective.rendering(kind)
        quality = self._quality(rendering.whole, perspective.reference)
        if quality is None:
            return None
        constant = self._whole_constant(perspective, perspective.reference, model)
        if constant is None:
            return None
        return PerspectiveScores(
            perspective=perspective.index,
            angle_deg=perspective.angle_deg,
            frames=rendering.whole.frames,
            kind=kind,
            quality=quality,
            constant=constant,
            model_versions=sorted(rendering.versions),
        )

    def score_held_out(
        self, perspective: Perspective, model: Model, *, kept: Sequence[Perspective]
    ) -> HeldOutScores | None:
        """Score the held-out frames alone; None unless there are some, all last imaged by `model`, and a reference.

        `kept`: perspectives whose frames are kept, of which the memoriser may know. Blocks, for seconds.
        """
        rendering = perspective.rendering(MosaicKind.REFRESHED)
        if perspective.reference is None or not rendering.held_out.frames or rendering.versions != {model.version}:
            return None
        quality = self._quality(rendering.held_out, perspective.reference)
        positions_px, held_out = perspective.placements()
        constant = self._constant_quality(positions_px[held_out], model.constant, perspective.reference)
        if quality is None or constant is None:
            return None
        height, width = model.constant.phase.shape[1:]
        remembered = remember_held_out(
            perspective, kept, target_shape_px=(height, width), patch_crop_px=self._patch_crop_px
        )
        return HeldOutScores(
            perspective=perspective.index,
            frames=rendering.held_out.frames,
            quality=quality,
            constant=constant,
            model_version=model.version,
            memoriser=None if remembered is None else self._quality(remembered, perspective.reference),
        )

    def forget(self, perspective: int) -> None:
        """Let go of what is held of a perspective."""
        self._constants.pop(perspective, None)

    def _whole_constant(self, perspective: Perspective, reference: ReferenceImage, model: Model) -> Quality | None:
        """Return the constant's quality, which both images of a perspective share."""
        positions_px, _ = perspective.placements()
        state = len(positions_px), model.version
        known = self._constants.get(perspective.index)
        if known is None or known[0] != state:
            known = state, self._constant_quality(positions_px, model.constant, reference)
            self._constants[perspective.index] = known
        return known[1]

    def _quality(self, mosaic: Mosaic, reference: ReferenceImage) -> Quality | None:
        comparison = compare(mosaic.image(), reference, min_coverage=self._min_coverage)
        return None if comparison is None else measure(comparison)

    def _constant_quality(
        self, positions_px: npt.NDArray[np.float64], constant: ConstantPatch, reference: ReferenceImage
    ) -> Quality | None:
        mosaic = Mosaic()
        patch = [crop_centre(channel, self._patch_crop_px) for channel in constant]
        for start in range(0, len(positions_px), STITCHED_AT_ONCE):
            some_px = positions_px[start : start + STITCHED_AT_ONCE]
            amplitude, phase = (np.broadcast_to(one, (len(some_px), *one.shape[1:])) for one in patch)
            mosaic.stitch(place_patches(amplitude, phase, some_px))
        return self._quality(mosaic, reference)
