"""What comes of training on a stream of images: accuracies on every task seen, and weights for the edge."""

from __future__ import annotations

import logging

from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.events import TaskAccuracies
from ptychoflow.trainer.device import Rank
from ptychoflow.trainer.models.classifier import ImageClassifier
from ptychoflow.trainer.models.classifier_file import classifier_writer
from ptychoflow.trainer.models.tensor_file import Writer
from ptychoflow.trainer.online.ingest import SampleIngest
from ptychoflow.trainer.online.publication import Publication
from ptychoflow.trainer.online.publishing_callback import PublishingCallback
from ptychoflow.trainer.online.step_report import StepReport
from ptychoflow.trainer.pipelines.classification.evaluation import TaskEvaluation, evaluate_tasks
from ptychoflow.trainer.settings import StreamSettings
from ptychoflow.trainer.training.evaluation import Evaluation
from ptychoflow.trainer.training.learner import Learner

log = logging.getLogger(__name__)


class ClassificationCallback(PublishingCallback[ImageClassifier]):
    """Measures accuracies.

    Args:
        settings: periods and limits.
        ingest: holds the validation samples.
        learner: holds the network.
        rank: this process.
        publication: takes the weights; None on ranks other than 0.
        report: takes what happens.
    """

    def __init__(
        self,
        settings: StreamSettings,
        *,
        ingest: SampleIngest,
        learner: Learner[ImageClassifier],
        rank: Rank,
        publication: Publication | None,
        report: StepReport,
    ) -> None:
        super().__init__(settings, ingest=ingest, learner=learner, publication=publication, report=report)
        self._rank = rank

    def _weights_writer(self, network: ImageClassifier) -> Writer:
        return classifier_writer(network)

    def _evaluate(self, samples: dict[int, Arrays], *, limit: int | None) -> TaskEvaluation | None:
        return evaluate_tasks(self._learner.averaged.network, samples, rank=self._rank, limit=limit)

    def _tell(self, result: Evaluation) -> None:
        if isinstance(result, TaskEvaluation):
            log.info("top-1 by task: %s", ", ".join(f"{task}: {share:.3f}" for task, share in result.top1.items()))
            accuracies = TaskAccuracies(self._perspective, self._learner.steps, top1=result.top1, top5=result.top5)
            self._report.send(accuracies)

    def _no_better(self, result: Evaluation) -> str:
        return (
            f"the network classifies no better than by guessing: cross-entropy {result.mean_over_seen:.4f}, "
            f"guessing {result.constant:.4f}"
        )
