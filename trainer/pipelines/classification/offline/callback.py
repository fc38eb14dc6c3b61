"""What comes of training on images: accuracies after every epoch."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from ptychoflow.trainer.continual_metrics import average_over_seen
from ptychoflow.trainer.interface.callback import Callback
from ptychoflow.trainer.interface.stream import SectionEnd
from ptychoflow.trainer.models.classifier import ImageClassifier
from ptychoflow.trainer.pipelines.classification.offline.evaluation import Accuracy, AccuracyEvaluator
from ptychoflow.trainer.pipelines.classification.offline.record import EpochResult, TrainingRecord
from ptychoflow.trainer.training.learner import Learner

log = logging.getLogger(__name__)


class TaskCallback(Callback):
    """Evaluates after each epoch on the tasks seen, and after each task on all tasks.

    Args:
        record: is added to; it says which task and epoch are being learnt.
        epochs: how many a task is learnt for.
        learner: holds the network.
        evaluator: measures accuracies.
        after_epoch: called on every rank when the record has been added to.
    """

    def __init__(
        self,
        record: TrainingRecord,
        *,
        epochs: int,
        learner: Learner[ImageClassifier],
        evaluator: AccuracyEvaluator,
        after_epoch: Callable[[], None],
    ) -> None:
        self._record, self._epochs = record, epochs
        self._learner, self._evaluator = learner, evaluator
        self._after_epoch = after_epoch
        self._resumed_s = time.monotonic()

    def on_section_end(self, end: SectionEnd) -> None:
        """Evaluate on the tasks seen, or after the last epoch on all."""
        record = self._record
        record.seconds += time.monotonic() - self._resumed_s
        task, epoch = divmod(len(record.epochs), self._epochs)
        is_last = epoch == self._epochs - 1
        accuracy = self._evaluate(tasks=None if is_last else task + 1)
        averages = [average_over_seen(row, task=task) for row in (accuracy.top1, accuracy.top5)]
        record.epochs.append(EpochResult(task, epoch, record.seconds, *averages))
        if is_last:
            record.after_task.append(accuracy)
        log.info("task %d, epoch %d: top-1 %.4f, top-5 %.4f over the tasks seen", task, epoch, *averages)
        self._after_epoch()
        self._resumed_s = time.monotonic()

    def _evaluate(self, *, tasks: int | None) -> Accuracy:
        self._learner.averaged.share_statistics()
        return self._evaluator.evaluate(self._learner.averaged.network, tasks=tasks)
