"""What comes of training on a scan: validation losses, and weights for the edge."""

from __future__ import annotations

import logging
import time

from ptychoflow.streaming.events import ValidationLoss
from ptychoflow.streaming.messages import PerspectiveEnd
from ptychoflow.trainer.interface.batch import Batch
from ptychoflow.trainer.interface.stream import Marker
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.ptychonn import Patches
from ptychoflow.trainer.models.tensor_file import Writer
from ptychoflow.trainer.models.weights_file import weights_writer
from ptychoflow.trainer.online.ingest import Arrivals
from ptychoflow.trainer.online.publication import Publication
from ptychoflow.trainer.online.publishing_callback import PublishingCallback
from ptychoflow.trainer.online.step_report import StepReport
from ptychoflow.trainer.pipelines.ptychography.evaluation import Evaluation, Evaluator
from ptychoflow.trainer.pipelines.ptychography.mean_patch import MeanPatch
from ptychoflow.trainer.pipelines.ptychography.worsening import Worsening
from ptychoflow.trainer.settings import TrainerSettings
from ptychoflow.trainer.training.learner import Learner

log = logging.getLogger(__name__)


class PtychographyCallback(PublishingCallback[FrameNetwork]):
    """Evaluates at the ends of perspectives and of the scan; publishes then, at intervals, and at last.

    Args:
        settings: periods and limits.
        arrivals: holds the validation samples.
        learner: holds the network.
        evaluator: measures the validation loss.
        mean_patch: gathers the constant prediction.
        publication: takes the weights; None on ranks other than 0.
        report: takes what happens.
    """

    def __init__(
        self,
        settings: TrainerSettings,
        *,
        arrivals: Arrivals,
        learner: Learner[FrameNetwork],
        evaluator: Evaluator,
        mean_patch: MeanPatch,
        publication: Publication | None,
        report: StepReport,
    ) -> None:
        super().__init__(settings, arrivals=arrivals, learner=learner, publication=publication, report=report)
        self._settings = settings
        self._evaluator, self._mean_patch = evaluator, mean_patch
        self._constant = mean_patch.on_this_rank()
        self._warned_of_amplitude = False
        self._worsening = Worsening(settings.worsening_perspectives)

    def _share(self) -> None:
        super()._share()
        self._constant = self._mean_patch.over_all_ranks()

    def _writer(self, network: FrameNetwork) -> Writer:
        return weights_writer(network, self._constant)

    def after_step(self, batch: Batch) -> None:
        """Take the ground truth into the mean patch."""
        self._mean_patch.add(Patches(*batch.target), first=batch.stream)
        self._check_amplitude()

    def end_section(self, marker: Marker) -> None:
        """Evaluate on some of the validation samples and publish; warn if that gets worse and worse."""
        if isinstance(marker, PerspectiveEnd):
            self._perspective = marker.perspective
        result = self._evaluate(limit=self._settings.evaluation_frames)
        if result is not None and self._publication is not None:
            warning = self._worsening.heed(self._perspective, result.per_perspective)
            if warning is not None:
                self._report.warn(warning)
        self._publish(final=False)

    def end_stream(self) -> None:
        """Evaluate on all validation samples; warn if a constant would have predicted as well."""
        result = self._evaluate(limit=None)
        if result is not None and self._publication is not None and result.mean_over_seen >= result.constant:
            self._report.warn(
                f"the network predicts no better than the mean training patch: validation loss "
                f"{result.mean_over_seen:.4f}, constant {result.constant:.4f}"
            )

    def _evaluate(self, *, limit: int | None) -> Evaluation | None:
        started_s = time.monotonic()
        self._learner.averaged.share_statistics()
        result = self._evaluator.evaluate(
            self._learner.averaged.network,
            self._mean_patch.over_all_ranks(),
            self._validation_so_far(),
            limit=limit,
        )
        if result is not None:
            self._validation_loss = result.mean_over_seen
            self._tell(result, seconds=time.monotonic() - started_s)
        return result

    def _tell(self, result: Evaluation, *, seconds: float) -> None:
        log.info(
            "after perspective %d: validation loss %.4f, constant prediction %.4f, %.1f s",
            self._perspective,
            result.mean_over_seen,
            result.constant,
            seconds,
        )
        if self._publication is None:
            return
        self._report.send(
            ValidationLoss(
                after_perspective=self._perspective,
                step=self._learner.steps,
                per_perspective=result.per_perspective,
                mean_over_seen=result.mean_over_seen,
                constant=result.constant,
            )
        )

    def _check_amplitude(self) -> None:
        scale, largest = self._settings.amplitude_scale, self._arrivals.largest_amplitude
        if largest > scale and not self._warned_of_amplitude:
            self._warned_of_amplitude = True
            self._report.warn(
                f"amplitudes up to {largest:.2f} exceed trainer.amplitude_scale = {scale:g}, which the network cannot "
                "predict; raise it if more than a few pixels at the rim are concerned"
            )
