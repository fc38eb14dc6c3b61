"""One strategy over all tasks in sequence, on all ranks."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

import torch

from ptychoflow.acquisition.classification.tasks import deal_classes
from ptychoflow.trainer.checkpoints.state_file import State
from ptychoflow.trainer.device import Rank
from ptychoflow.trainer.models.classifier import ImageClassifier, untrained_classifier
from ptychoflow.trainer.pipelines.classification.offline.callback import TaskCallback
from ptychoflow.trainer.pipelines.classification.offline.data import ImageData
from ptychoflow.trainer.pipelines.classification.offline.epochs import EpochStream, Shards
from ptychoflow.trainer.pipelines.classification.offline.evaluation import AccuracyEvaluator
from ptychoflow.trainer.pipelines.classification.offline.record import TrainingRecord
from ptychoflow.trainer.pipelines.classification.offline.schedule import TaskSchedule
from ptychoflow.trainer.pipelines.classification.pipeline import Classification
from ptychoflow.trainer.pipelines.classification.settings import ClassificationSettings, ImageSettings
from ptychoflow.trainer.strategies.factory import make_strategy
from ptychoflow.trainer.strategies.strategy import Strategy
from ptychoflow.trainer.training.learner import Learner
from ptychoflow.trainer.training.loop import TrainingLoop
from ptychoflow.trainer.training.rank_seed import seed_rank
from ptychoflow.trainer.training.section_checkpoints import SectionCheckpoints
from ptychoflow.trainer.training.time_report import TimeReport

log = logging.getLogger(__name__)


@dataclass
class _Progress:
    """Where a training stands."""

    record: TrainingRecord
    learner: Learner[ImageClassifier]
    strategy: Strategy
    report: TimeReport
    task_step: float = 0.0
    """Step at which the task that is being learnt began, counted with the steps per epoch of these ranks."""


class TaskTrainer:
    """Trains a network on tasks, one after the other. Collective.

    Args:
        settings: strategy, network, rates.
        images: tasks and sharding; the rest as in `data`.
        data: the images.
        rank: this process.
        seed: of the tasks, the order, the network and the buffer.
        from_scratch: train a new network for every task on all tasks so far, instead of going on with one network.
        checkpoints: of this training; it goes on from the newest one, on as many ranks or on others. None writes none.
        after_epoch: told how many epochs are done, and of how many.
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
        checkpoints: SectionCheckpoints | None = None,
        after_epoch: Callable[[int, int], None] | None = None,
    ) -> None:
        self._settings, self._images, self._data = settings, images, data
        self._rank, self._seed = rank, seed
        self._from_scratch, self._checkpoints = from_scratch, checkpoints
        self._tell_epoch = after_epoch
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
            UserError: too many files cannot be read, buffer sizes that cannot work, or a damaged checkpoint.
        """
        strategy = make_strategy(self._settings, self._pipeline, device=self._rank.device, seed=self._seed)
        with closing(strategy):
            now = self._start(strategy)
            while len(now.record.epochs) < len(self._tasks) * self._settings.epochs:
                self._learn_task(now)
            self._complete(now)
        return now.record

    def _start(self, strategy: Strategy) -> _Progress:
        """Begin, or go on from the newest checkpoint."""
        learner, report = self._new_learner(), TimeReport(strategy.buffer)
        found = self._checkpoints.newest() if self._checkpoints is not None else None
        if found is None or self._checkpoints is None:
            record = TrainingRecord(untrained=self._evaluator.evaluate(learner.averaged.network))
            now = _Progress(record, learner, strategy, report)
        else:
            common, shards = self._checkpoints.restore(found, learner, strategy)
            report.restore(common["report"])
            now = _Progress(TrainingRecord.from_state(common["record"]), learner, strategy, report)
            self._go_on(now, common, shards)
        now.record.starts.append(self._rank.world_size)
        return now

    def _go_on(self, now: _Progress, common: State, shards: Sequence[State]) -> None:
        rank, ranks = self._rank.rank, self._rank.world_size
        for shard in shards[rank::ranks]:
            self._data.train.corrupt.reasons.update({int(row): reason for row, reason in shard["corrupt"].items()})
        task, epoch = divmod(len(now.record.epochs), self._settings.epochs)
        now.task_step = common["task_step"]
        if len(shards) != ranks and epoch > 0:
            now.task_step = now.learner.steps - epoch * self._steps_per_epoch(self._learnt_together(task))
        log.info("going on after %d epochs of task %d", epoch, task)

    def _learn_task(self, now: _Progress) -> None:
        """Learn the task that the record has come to, from the epoch that it has come to."""
        task, epoch = divmod(len(now.record.epochs), self._settings.epochs)
        if epoch == 0:
            if self._from_scratch and task > 0:
                now.learner = self._new_learner()
            now.task_step = now.learner.steps
        TrainingLoop(
            self._settings,
            stream=self._stream(self._learnt_together(task), now, first=epoch),
            strategy=now.strategy,
            learner=now.learner,
            callback=TaskCallback(
                now.record,
                epochs=self._settings.epochs,
                learner=now.learner,
                evaluator=self._evaluator,
                after_epoch=lambda: self._end_epoch(now),
            ),
            report=now.report,
            stop=threading.Event(),
        ).run(goes_on=True)

    def _end_epoch(self, now: _Progress) -> None:
        self._data.train.corrupt.gather(self._rank.device)
        self._save(now)
        if self._tell_epoch is not None:
            self._tell_epoch(len(now.record.epochs), len(self._tasks) * self._settings.epochs)

    def _save(self, now: _Progress) -> None:
        """Write a checkpoint of all ranks, if one is due; blocks until it is complete."""
        checkpoints, epoch = self._checkpoints, len(now.record.epochs) % self._settings.epochs
        if checkpoints is None or epoch % checkpoints.every:
            return
        started_s = time.monotonic()
        step = now.report.steps + now.report.skipped
        corrupt = {str(row): reason for row, reason in self._data.train.corrupt.reasons.items()}
        checkpoints.save(
            step,
            now.learner,
            now.strategy,
            common={"record": now.record.state(), "report": now.report.state(), "task_step": now.task_step},
            own={"corrupt": corrupt},
        )
        log.info("checkpoint after step %d, written in %.2f s", step, time.monotonic() - started_s)

    def _new_learner(self) -> Learner[ImageClassifier]:
        torch.manual_seed(self._seed)
        network = untrained_classifier(self._images.classifier(self._settings.model, classes=self._data.classes))
        learner = Learner(
            network,
            self._pipeline,
            self._settings,
            schedule=self._schedule,
            device=self._rank.device,
            precision=self._rank.precision,
        )
        seed_rank(self._seed, rank=self._rank.rank)
        return learner

    def _learnt_together(self, task: int) -> range:
        """Return the tasks whose samples are learnt in the place of a task."""
        return range(task + 1) if self._from_scratch else range(task, task + 1)

    def _steps_per_epoch(self, tasks: range) -> float:
        minibatches = self._shards.steps_per_epoch(tasks, batch_size=self._settings.batch_size)
        return minibatches / self._settings.optimizer.accumulate

    def _stream(self, tasks: range, now: _Progress, *, first: int) -> EpochStream:
        self._schedule.begin_task(step=now.task_step, steps_per_epoch=self._steps_per_epoch(tasks))
        rank = self._rank.rank
        return EpochStream(
            self._data.train,
            range(first, self._settings.epochs),
            lambda epoch: self._shards.rows(tasks, rank=rank, epoch=epoch),
            batch_size=self._settings.batch_size,
        )

    def _complete(self, now: _Progress) -> None:
        record, report = now.record, now.report
        record.steps, record.samples, record.skipped_steps = report.steps, report.samples, report.skipped
        record.corrupt = self._data.corrupt
        record.breakdown_ms, record.buffer = report.breakdown_ms(), report.buffer_figures()
