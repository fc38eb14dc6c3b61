"""What comes of training on a scan: validation losses, and weights for the edge."""

from __future__ import annotations

from ptychoflow.streaming.codec import Arrays
from ptychoflow.trainer.checkpoints.state_file import State
from ptychoflow.trainer.interface.batch import Batch
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.ptychonn import Patches
from ptychoflow.trainer.models.tensor_file import Writer
from ptychoflow.trainer.models.weights_file import weights_writer
from ptychoflow.trainer.online.ingest import SampleIngest
from ptychoflow.trainer.online.publication import Publication
from ptychoflow.trainer.online.publishing_callback import PublishingCallback
from ptychoflow.trainer.online.step_report import StepReport
from ptychoflow.trainer.pipelines.ptychography.evaluation import Evaluator
from ptychoflow.trainer.pipelines.ptychography.mean_patch import MeanPatch
from ptychoflow.trainer.pipelines.ptychography.settings import TrainerSettings
from ptychoflow.trainer.pipelines.ptychography.worsening import Worsening
from ptychoflow.trainer.training.evaluation import Evaluation
from ptychoflow.trainer.training.learner import Learner

WORSENING = "worsening"
"""What was compared, in a checkpoint."""


class PtychographyCallback(PublishingCallback[FrameNetwork]):
    """Measures validation losses, beside those of the mean training patch.

    Args:
        settings: periods and limits.
        ingest: holds the validation samples.
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
        ingest: SampleIngest,
        learner: Learner[FrameNetwork],
        evaluator: Evaluator,
        mean_patch: MeanPatch,
        publication: Publication | None,
        report: StepReport,
    ) -> None:
        super().__init__(settings, ingest=ingest, learner=learner, publication=publication, report=report)
        self._amplitude_scale = settings.amplitude_scale
        self._evaluator, self._mean_patch = evaluator, mean_patch
        self._constant = mean_patch.on_this_rank()
        self._warned_of_amplitude = False
        self._worsening = Worsening(settings.worsening_perspectives)

    def state(self) -> State:
        """Return what the next evaluations, comparisons and publications go on from."""
        return {**super().state(), WORSENING: self._worsening.state()}

    def restore(self, state: State) -> None:
        """Go on from what `state` returned."""
        super().restore(state)
        if WORSENING in state:  # an earlier version did not keep it
            self._worsening.restore(state[WORSENING])

    def on_step_end(self, batch: Batch) -> None:
        """Take the ground truth into the mean patch."""
        self._mean_patch.accumulate(Patches(*batch.target), first=batch.stream)

    def _share(self) -> None:
        super()._share()
        self._constant = self._mean_patch.over_all_ranks()
        self._check_amplitude()

    def _weights_writer(self, network: FrameNetwork) -> Writer:
        return weights_writer(network, self._constant)

    def _evaluate(self, samples: dict[int, Arrays], *, limit: int | None) -> Evaluation | None:
        return self._evaluator.evaluate(self._learner.averaged.network, self._constant, samples, limit=limit)

    def _section_warning(self, result: Evaluation) -> str | None:
        return self._worsening.compare(self._perspective, result.per_perspective)

    def _no_better(self, result: Evaluation) -> str:
        return (
            f"the network predicts no better than the mean training patch: validation loss "
            f"{result.mean_over_seen:.4f}, constant {result.constant:.4f}"
        )

    def _check_amplitude(self) -> None:
        scale = self._amplitude_scale
        if not self._warned_of_amplitude and (largest := self._mean_patch.largest_amplitude()) > scale:
            self._warned_of_amplitude = True
            self._report.warn(
                f"amplitudes up to {largest:.2f} exceed trainer.amplitude_scale = {scale:g}, which the network cannot "
                "predict; raise it if more than a few pixels at the rim are concerned"
            )
