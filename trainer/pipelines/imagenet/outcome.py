"""What comes of training on images: accuracies after every epoch."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass
from typing import Any

from trainer.learner import Learner
from trainer.models.classifier import ImageClassifier
from trainer.outcome import Outcome
from trainer.pipelines.imagenet.evaluation import Accuracy, AccuracyEvaluator
from trainer.stream import Marker
from trainer.transfer import average_over_seen

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EpochResult:
    """How good the network was after an epoch."""

    task: int
    epoch: int
    """Within the task, from 0."""
    seconds: float
    """Of training since the first task's beginning; evaluation is left out."""
    average_top1: float
    """Over the tasks seen so far (eq. 5.1)."""
    average_top5: float

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


class TaskOutcome(Outcome):
    """Evaluates after each epoch on the tasks seen, and after each task on all tasks.

    Args:
        task: which one is being learnt.
        epochs: how many it is learnt for.
        learner: holds the network.
        evaluator: measures accuracies.
        trained_s: seconds of training before this task.
    """

    def __init__(
        self,
        task: int,
        *,
        epochs: int,
        learner: Learner[ImageClassifier],
        evaluator: AccuracyEvaluator,
        trained_s: float,
    ) -> None:
        self.epochs: list[EpochResult] = []
        self.accuracy: Accuracy | None = None
        """On all tasks, once the task is learnt."""
        self.trained_s = trained_s
        self._task, self._last_epoch = task, epochs - 1
        self._learner, self._evaluator = learner, evaluator
        self._resumed_s = time.monotonic()

    def end_section(self, marker: Marker) -> None:
        """Evaluate on the tasks seen, or after the last epoch on all."""
        self._stop_clock()
        epoch = len(self.epochs)
        accuracy = self._evaluate(tasks=None if epoch == self._last_epoch else self._task + 1)
        averages = [average_over_seen(row, task=self._task) for row in (accuracy.top1, accuracy.top5)]
        self.epochs.append(EpochResult(self._task, epoch, self.trained_s, *averages))
        self.accuracy = accuracy if epoch == self._last_epoch else None
        log.info("task %d, epoch %d: top-1 %.4f, top-5 %.4f over the tasks seen", self._task, epoch, *averages)
        self._resumed_s = time.monotonic()

    def end_stream(self) -> None:
        """Nothing is left to do: the last epoch's end was the task's."""

    def _stop_clock(self) -> None:
        self.trained_s += time.monotonic() - self._resumed_s

    def _evaluate(self, *, tasks: int | None) -> Accuracy:
        self._learner.averaged.share_statistics()
        return self._evaluator.evaluate(self._learner.averaged.network, tasks=tasks)
