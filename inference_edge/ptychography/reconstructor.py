"""From frames to placed patches, with the weights in use, and back to the weights before where those fail."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ptychoflow.inference_edge.backends.prediction import Prediction
from ptychoflow.inference_edge.backends.runner import Result, Runner, begin_in_batches
from ptychoflow.inference_edge.ptychography.batch_sizer import BatchSizer
from ptychoflow.inference_edge.ptychography.diffraction_block import DiffractionBlock
from ptychoflow.inference_edge.ptychography.model import Model
from ptychoflow.inference_edge.ptychography.residual_meter import ResidualMeter
from ptychoflow.inference_edge.settings import EdgeSettings
from ptychoflow.inference_edge.stitching.mosaic import PlacedPatches, crop_centre, place_patches
from ptychoflow.inference_edge.wake_up import WakeUp
from ptychoflow.inference_edge.weights_receiver import WeightsReceiver
from ptychoflow.streaming.illumination import Illumination


class Predicted(NamedTuple):
    """What a network said, and how long it took to say it and to look how well that explains the frames."""

    prediction: Prediction
    finite: npt.NDArray[np.bool_]
    """(n,), which patches are finite throughout."""
    residuals: npt.NDArray[np.float64] | None
    """(n,), NaN of frames that were not scored; None where nothing is known of the light."""
    seconds: float


@dataclass(frozen=True)
class SubmittedFrames:
    """Frames that a model is given."""

    model: Model
    block: DiffractionBlock
    predicted: Future[Predicted]

    @property
    def done(self) -> bool:
        """Whether the model is done with them."""
        return self.predicted.done()


@dataclass(frozen=True)
class ReconstructedFrames:
    """Frames with their patches, and the version of the weights that predicted them."""

    block: DiffractionBlock
    patches: PlacedPatches
    version: int
    residuals: npt.NDArray[np.float64] | None


class Reconstructor:
    """Runs networks in a thread of its own, beside which frames are received and patches stitched.

    Batches are computed one after the other; while one is computed, the next can already wait. On a GPU a second thread
    begins with it, so that its frames are there when the GPU is done, and the first waits for patches and tests them.

    Args:
        settings: of the edge.
        weights: holds the model in use; told when it fails.
        wake_up: set whenever submitted frames are done.
        warn: tells the user.
    """

    def __init__(
        self,
        settings: EdgeSettings,
        *,
        weights: WeightsReceiver[Model],
        wake_up: WakeUp,
        warn: Callable[[str], None],
    ) -> None:
        self.sizer = BatchSizer(latency_max_s=settings.latency_max_ms / 1000, batch_max=settings.batch_max)
        """How many frames to submit at once."""
        self._weights, self._wake_up, self._warn = weights, wake_up, warn
        self._batch_max, self._patch_crop_px = settings.batch_max, settings.patch_crop_px
        self._meter = ResidualMeter(settings.residual_share)
        self._done_s = 0.0
        """When the network was done with the newest frames."""
        self._beginning = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference-begin")
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference")

    def submit(
        self, model: Model, block: DiffractionBlock, illumination: Illumination | None = None
    ) -> SubmittedFrames:
        """Give frames to the model; returns at once. Where the light is known, some are scored by it."""
        predicted = self._begin(model.runner, block.diffraction, illumination)
        predicted.add_done_callback(lambda _: self._wake_up.set())
        return SubmittedFrames(model, block, predicted)

    def record_time(self, submitted: SubmittedFrames, *, stitching_frame_s: float = 0.0) -> None:
        """Learn from frames what imaging takes, beside stitching. Waits until the model is done with them."""
        frames = len(submitted.block)
        self.sizer.record(frames, max(submitted.predicted.result().seconds, frames * stitching_frame_s))

    def place(self, submitted: SubmittedFrames) -> ReconstructedFrames:
        """Return the frames that could be imaged; those without a finite image are left out, with a warning.

        Waits until the model is done. Weights that give no finite image where those before do are discarded.
        """
        model, block = submitted.model, submitted.block
        prediction, finite, residuals, _ = submitted.predicted.result()
        if not finite.all():
            residuals = None
            model, prediction = self._without_failed_weights(submitted, prediction)
            finite = prediction.finite()
        if not finite.all():
            self._warn(f"{int((~finite).sum())} frames were not stitched: their counts give no finite image")
            block, prediction = block.select(finite), prediction.select(finite)
        amplitude = None if prediction.amplitude is None else crop_centre(prediction.amplitude, self._patch_crop_px)
        phase = crop_centre(prediction.phase, self._patch_crop_px)
        return ReconstructedFrames(block, place_patches(amplitude, phase, block.position_px), model.version, residuals)

    def reconstruct(
        self, model: Model, block: DiffractionBlock, illumination: Illumination | None = None
    ) -> ReconstructedFrames:
        """Submit frames and return them as `place` does. Blocks."""
        submitted = self.submit(model, block, illumination)
        self.record_time(submitted)
        return self.place(submitted)

    def predict(self, model: Model, frames: npt.NDArray[Any]) -> Prediction:
        """Run a model on frames (n, y, x) of counts, after those submitted before. Blocks."""
        return self._begin(model.runner, frames).result().prediction

    def close(self) -> None:
        """Wait for the batch that is computed now; drop those that wait."""
        self._beginning.shutdown(cancel_futures=True)
        self._thread.shutdown(cancel_futures=True)

    def _begin(
        self, runner: Runner, frames: npt.NDArray[Any], illumination: Illumination | None = None
    ) -> Future[Predicted]:
        def begin() -> tuple[float, Result]:
            return time.perf_counter(), begin_in_batches(runner, frames, batch_max=self._batch_max)

        begun = self._beginning.submit(begin).result if runner.overlaps else begin
        return self._thread.submit(self._run, begun, frames, illumination)

    def _run(
        self, begun: Callable[[], tuple[float, Result]], frames: npt.NDArray[Any], illumination: Illumination | None
    ) -> Predicted:
        if illumination is not None:
            self._meter.begin()
        began_s, result = begun()
        prediction = result()
        # a device that was still at frames before has not begun with these
        began_s, self._done_s = max(began_s, self._done_s), time.perf_counter()
        # tested here, where they are still in the cache
        finite = prediction.finite()
        residuals = None if illumination is None else self._meter.measure(frames, prediction, illumination)
        return Predicted(prediction, finite, residuals, time.perf_counter() - began_s)

    def _without_failed_weights(self, submitted: SubmittedFrames, prediction: Prediction) -> tuple[Model, Prediction]:
        """Return what other weights make of frames, if more of it is finite: those in use by now, or those before."""
        in_use = self._weights.model
        other = self._weights.previous if in_use is submitted.model else in_use
        if other is None:
            return submitted.model, prediction
        again = self.predict(other, submitted.block.diffraction)
        failed = int(again.finite().sum() - prediction.finite().sum())
        if failed <= 0:
            return submitted.model, prediction
        reason = f"no finite image of {failed} frames that weights {other.version} image"
        self._weights.discard(submitted.model, reason)
        return other, again
