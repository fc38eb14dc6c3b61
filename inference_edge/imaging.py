"""From frames to placed patches, with the weights in use, and back to the weights before where those fail."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from inference_edge.batching import BatchSizer
from inference_edge.frame_block import FrameBlock
from inference_edge.inference import Imager
from inference_edge.mosaic import PlacedPatches, crop_centre, place_patches
from inference_edge.prediction import Prediction
from inference_edge.settings import EdgeSettings
from inference_edge.weights import Model
from inference_edge.weights_intake import WeightsIntake


@dataclass(frozen=True)
class Imaged:
    """Frames with their patches, and the version of the weights that predicted them."""

    block: FrameBlock
    patches: PlacedPatches
    version: int


class Imaging:
    """Images blocks of frames.

    Args:
        settings: of the edge.
        imager: where networks run.
        weights: holds the model in use; told when it fails.
        warn: tells the user.
    """

    def __init__(
        self, settings: EdgeSettings, *, imager: Imager, weights: WeightsIntake[Model], warn: Callable[[str], None]
    ) -> None:
        self.sizer = BatchSizer(latency_max_s=settings.latency_max_ms / 1000, batch_max=settings.batch_max)
        """How many frames to image at once."""
        self._imager, self._weights, self._warn = imager, weights, warn
        self._patch_crop_px = settings.patch_crop_px

    def image(self, model: Model, block: FrameBlock) -> Imaged:
        """Return the frames that could be imaged; those without a finite image are left out, with a warning.

        Weights that give no finite image where those before do are dropped.
        """
        began_s = time.perf_counter()
        prediction = self._imager.predict(model.runner, block.diffraction)
        finite = prediction.finite()
        if not finite.all():
            model, prediction = self._without_failed_weights(model, block, prediction)
            finite = prediction.finite()
        if not finite.all():
            self._warn(f"{int((~finite).sum())} frames were not stitched: their counts give no finite image")
            block, prediction = block.select(finite), prediction.select(finite)
        amplitude, phase = (crop_centre(channel, self._patch_crop_px) for channel in prediction)
        patches = place_patches(amplitude, phase, block.position_px)
        self.sizer.note(len(finite), time.perf_counter() - began_s)
        return Imaged(block, patches, model.version)

    def _without_failed_weights(
        self, model: Model, block: FrameBlock, prediction: Prediction
    ) -> tuple[Model, Prediction]:
        before = self._weights.previous
        if before is None:
            return model, prediction
        earlier = self._imager.predict(before.runner, block.diffraction)
        failed = int(earlier.finite().sum() - prediction.finite().sum())
        if failed <= 0:
            return model, prediction
        self._weights.drop(f"no finite image of {failed} frames that weights {before.version} image")
        return before, earlier
