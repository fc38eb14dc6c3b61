"""What comes of training on a stream of images: accuracies on every task seen, and weights for the edge."""

from __future__ import annotations

import logging

from ptychoflow.streaming.events import TaskAccuracies, ValidationLoss
from ptychoflow.streaming.messages import PerspectiveEnd
from ptychoflow.trainer.device import Rank
from ptychoflow.trainer.interface.stream import Marker
from ptychoflow.trainer.models.classifier import ImageClassifier
from ptychoflow.trainer.models.classifier_file import classifier_writer
from ptychoflow.trainer.models.tensor_file import Writer
from ptychoflow.trainer.online.ingest import Arrivals
from ptychoflow.trainer.online.publication import Publication
from ptychoflow.trainer.online.publishing_callback import PublishingCallback
from ptychoflow.trainer.online.step_report import StepReport
from ptychoflow.trainer.pipelines.classification.evaluation import TaskEvaluation, evaluate_tasks
from ptychoflow.trainer.settings import StreamSettings
from ptychoflow.trainer.training.learner import Learner

log = logging.getLogger(__name__)


class ClassificationCallback(PublishingCallback[ImageClassifier]):
    """Evaluates at the ends of tasks and of the stream; publishes then, at intervals, and at last.

    Args:
        settings: periods and limits.
        arrivals: holds the validation samples.
        learner: holds the network.
        rank: this process.
        publication: takes the weights; None on ranks other than 0.
        report: takes what happens.
    """

    def __init__(
        self,
        settings: StreamSettings,
        *,
        arrivals: Arrivals,
        learner: Learner[ImageClassifier],
        rank: Rank,
        publication: Publication | None,
        report: StepReport,
    ) -> None:
        super().__init__(settings, arrivals=arrivals, learner=learner, publication=publication, report=report)
        self._evaluation_images, self._rank = settings.evaluation_frames, rank

    def _writer(self, network: ImageClassifier) -> Writer:
        return classifier_writer(network)

    def end_section(self, marker: Marker) -> None:
        """Evaluate on some of the validation images of the tasks seen, and publish."""
        if isinstance(marker, PerspectiveEnd):
            self._perspective = marker.perspective
        self._evaluate(limit=self._evaluation_images)
        self._publish(final=False)

    def end_stream(self) -> None:
        """Evaluate on all validation images; warn if guessing would have done as well."""
        result = self._evaluate(limit=None)
        if result is not None and self._publication is not None and result.mean_loss >= result.guessing:
            self._report.warn(
                f"the network classifies no better than by guessing: cross-entropy {result.mean_loss:.4f}, "
                f"guessing {result.guessing:.4f}"
            )

    def _evaluate(self, *, limit: int | None) -> TaskEvaluation | None:
        self._share()
        result = evaluate_tasks(self._learner.averaged.network, self._validation_so_far(), rank=self._rank, limit=limit)
        if result is not None:
            self._validation_loss = result.mean_loss
            self._tell(result)
        return result

    def _tell(self, result: TaskEvaluation) -> None:
        shares = ", ".join(f"{task}: {share:.3f}" for task, share in result.top1.items())
        log.info("after task %d: top-1 by task %s; cross-entropy %.4f", self._perspective, shares, result.mean_loss)
        if self._publication is None:
            return
        step = self._learner.steps
        self._report.send(TaskAccuracies(self._perspective, step, top1=result.top1, top5=result.top5))
        self._report.send(
            ValidationLoss(
                after_perspective=self._perspective,
                step=step,
                per_perspective=result.loss,
                mean_over_seen=result.mean_loss,
                constant=result.guessing,
            )
        )
