"""One strategy over all tasks in sequence, on all ranks."""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch

from acquisition.images.tasks import deal_classes
from trainer.device import Rank
from trainer.learner import Learner
from trainer.loop import TrainingLoop
from trainer.models.classifier import ImageClassifier
from trainer.pipelines.imagenet.data import ImageData
from trainer.pipelines.imagenet.epochs import EpochStream, Shards
from trainer.pipelines.imagenet.evaluation import Accuracy, AccuracyEvaluator
from trainer.pipelines.imagenet.outcome import EpochResult, TaskOutcome
from trainer.pipelines.imagenet.pipeline import Classification
from trainer.pipelines.imagenet.schedule import TaskSchedule
from trainer.pipelines.imagenet.settings import ClassificationSettings, ImageSettings
from trainer.strategies.making import make_strategy
from trainer.time_report import TimeReport

log = logging.getLogger(__name__)


@dataclass
class TrainingRecord:
    """What came of training on all tasks; the same on all ranks, apart from times."""

    untrained: Accuracy
    """Of the network before it has learnt anything, on every task."""
    after_task: list[Accuracy] = field(default_factory=list)
    """On every task."""
    epochs: list[EpochResult] = field(default_factory=list)
    seconds: float = 0.0
    """Of training; evaluation is left out."""
    steps: int = 0
    samples: int = 0
    """Trained on by all ranks, representatives included."""
    skipped_steps: int = 0
    corrupt: int = 0
    """Files that this rank could not read."""
    breakdown_ms: dict[str, float] = field(default_factory=dict)
    """Mean of a step."""
    buffer: dict[str, Any] | None = None
    """Capacity and share of the background work that was hidden; None without a buffer."""


class TaskTrainer:
    """Trains a network on tasks, one after the other. Collective.

    Args:
        settings: strategy, network, rates.
        images: tasks and sharding; the rest as in `data`.
        data: the images.
        rank: this process.
        seed: of the tasks, the order, the network and the buffer.
        from_scratch: train a new network for every task on all tasks so far, instead of going on with one network.
    """

    def __init__(
        self,
        settings: ClassificationSettings,
        images: ImageSettings,
        data: ImageData,
        *,
        rank: Rank,
        seed: int,
        from_scratch: bool = False,
    ) -> None:
        self._settings, self._images, self._data = settings, images, data
        self._rank, self._seed = rank, seed
        self._from_scratch = from_scratch
        self._pipeline = Classification(classes=data.classes, channels=images.channels, stored_px=images.stored_px)
        self._tasks = deal_classes(data.classes, tasks=images.tasks, seed=seed)
        self._shards = Shards(
            data.files.train, self._tasks, sharding=images.sharding, world_size=rank.world_size, seed=seed
        )
        self._evaluator = AccuracyEvaluator(data, self._tasks, rank=rank)
        self._schedule = TaskSchedule(
            settings.schedule,
            settings.learning_rate,
            minibatches=rank.world_size * settings.optimizer.accumulate,
        )

    def run(self) -> TrainingRecord:
        """Train on all tasks and evaluate after each epoch; blocks.

        Raises:
            UserError: too many files cannot be read, or buffer sizes that cannot work.
        """
        settings, rank = self._settings, self._rank
        strategy = make_strategy(settings, self._pipeline, device=rank.device, seed=self._seed)
        with ExitStack() as stack:
            if strategy.buffer is not None:
                stack.enter_context(strategy.buffer)
            report = TimeReport(strategy.buffer)
            learner = self._new_learner()
            record = TrainingRecord(untrained=self._evaluator.evaluate(learner.averaged.network))
            for task in range(len(self._tasks)):
                if self._from_scratch and task > 0:
                    learner = self._new_learner()
                outcome = TaskOutcome(
                    task, epochs=settings.epochs, learner=learner, evaluator=self._evaluator, trained_s=record.seconds
                )
                TrainingLoop(
                    settings,
                    stream=self._begin(task, learner),
                    strategy=strategy,
                    learner=learner,
                    outcome=outcome,
                    report=report,
                    stop=threading.Event(),
                ).run()
                self._add(record, outcome)
            self._complete(record, report)
        return record

    def _new_learner(self) -> Learner[ImageClassifier]:
        torch.manual_seed(self._seed)
        network = ImageClassifier(self._images.classifier(self._settings.model, classes=self._data.classes))
        return Learner(
            network,
            self._pipeline,
            self._settings,
            schedule=self._schedule,
            device=self._rank.device,
            precision=self._rank.precision,
        )

    def _begin(self, task: int, learner: Learner[ImageClassifier]) -> EpochStream:
        tasks = range(task + 1) if self._from_scratch else range(task, task + 1)
        batch_size, rank = self._settings.batch_size, self._rank.rank
        minibatches = self._shards.steps_per_epoch(tasks, batch_size=batch_size)
        self._schedule.begin_task(step=learner.steps, steps_per_epoch=minibatches / self._settings.optimizer.accumulate)
        return EpochStream(
            self._data.train,
            self._settings.epochs,
            lambda epoch: self._shards.rows(tasks, rank=rank, epoch=epoch),
            batch_size=batch_size,
        )

    def _add(self, record: TrainingRecord, outcome: TaskOutcome) -> None:
        if outcome.accuracy is None:
            raise RuntimeError("training on a task ended before all its samples were seen")
        record.after_task.append(outcome.accuracy)
        record.epochs.extend(outcome.epochs)
        record.seconds = outcome.trained_s

    def _complete(self, record: TrainingRecord, report: TimeReport) -> None:
        record.steps, record.samples, record.skipped_steps = report.steps, report.samples, report.skipped
        record.corrupt = len(self._data.train.corrupt)
        record.breakdown_ms, record.buffer = report.breakdown_ms(), report.buffer_figures()
