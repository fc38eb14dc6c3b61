"""From frames to placed patches, with the weights in use, and back to the weights before where those fail."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from ptychoflow.inference_edge.batching import BatchSizer
from ptychoflow.inference_edge.frame_block import FrameBlock
from ptychoflow.inference_edge.inference_thread import InferenceThread, Predicted
from ptychoflow.inference_edge.mosaic import PlacedPatches, crop_centre, place_patches
from ptychoflow.inference_edge.prediction import Prediction
from ptychoflow.inference_edge.settings import EdgeSettings
from ptychoflow.inference_edge.weights import Model
from ptychoflow.inference_edge.weights_intake import WeightsIntake


@dataclass(frozen=True)
class Begun:
    """Frames that a model is given."""

    model: Model
    block: FrameBlock
    predicted: Future[Predicted]

    @property
    def done(self) -> bool:
        """Whether the model is done with them."""
        return self.predicted.done()


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
        thread: where networks run.
        weights: holds the model in use; told when it fails.
        warn: tells the user.
    """

    def __init__(
        self,
        settings: EdgeSettings,
        *,
        thread: InferenceThread,
        weights: WeightsIntake[Model],
        warn: Callable[[str], None],
    ) -> None:
        self.sizer = BatchSizer(latency_max_s=settings.latency_max_ms / 1000, batch_max=settings.batch_max)
        """How many frames to image at once."""
        self._thread, self._weights, self._warn = thread, weights, warn
        self._patch_crop_px = settings.patch_crop_px

    def image(self, model: Model, block: FrameBlock) -> Imaged:
        """Return the frames that could be imaged, as `finish` does. Blocks."""
        begun = self.begin(model, block)
        self.learn(begun)
        return self.finish(begun)

    def begin(self, model: Model, block: FrameBlock) -> Begun:
        """Give frames to the model; returns at once."""
        # converted here, beside the batch that is computed now
        counts = block.diffraction.astype(np.float32)
        return Begun(model, block, self._thread.submit(model.runner, counts))

    def learn(self, begun: Begun, *, stitching_frame_s: float = 0.0) -> None:
        """Learn from frames what imaging takes, beside stitching. Waits until the model is done with them."""
        frames = len(begun.block)
        self.sizer.note(frames, max(begun.predicted.result().seconds, frames * stitching_frame_s))

    def finish(self, begun: Begun) -> Imaged:
        """Return the frames that could be imaged; those without a finite image are left out, with a warning.

        Waits until the model is done. Weights that give no finite image where those before do are dropped.
        """
        model, block, prediction = begun.model, begun.block, begun.predicted.result().prediction
        finite = prediction.finite()
        if not finite.all():
            model, prediction = self._without_failed_weights(begun, prediction)
            finite = prediction.finite()
        if not finite.all():
            self._warn(f"{int((~finite).sum())} frames were not stitched: their counts give no finite image")
            block, prediction = block.select(finite), prediction.select(finite)
        amplitude, phase = (crop_centre(channel, self._patch_crop_px) for channel in prediction)
        return Imaged(block, place_patches(amplitude, phase, block.position_px), model.version)

    def _without_failed_weights(self, begun: Begun, prediction: Prediction) -> tuple[Model, Prediction]:
        """Return what other weights make of frames, if more of it is finite: those in use by now, or those before."""
        in_use = self._weights.model
        other = self._weights.previous if in_use is begun.model else in_use
        if other is None:
            return begun.model, prediction
        again = self._thread.predict(other.runner, begun.block.diffraction)
        failed = int(again.finite().sum() - prediction.finite().sum())
        if failed <= 0:
            return begun.model, prediction
        self._weights.drop(begun.model, f"no finite image of {failed} frames that weights {other.version} image")
        return other, again
