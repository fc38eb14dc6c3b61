"""Plain experience replay and DER++ in one process, to hold the distributed ones against.

DER++ has the loss of the distributed `derpp` with β = 1, and not that of its paper, which has two draws and adds up
three means: here one draw serves both terms, and new and remembered samples share one mean of cross-entropies, so that,
where they are as many, each counts half and α weighs twice as much beside them.

Sources: D. Rolnick et al., "Experience replay for continual learning" (2019); P. Buzzega et al., "Dark experience for
general continual learning" (2020); the buffer is J. S. Vitter's reservoir (1985).
"""

from __future__ import annotations

import random
import time

import torch
from torch import Tensor, nn

from ptychoflow.acquisition.classification.tasks import deal_classes
from ptychoflow.trainer.device import Rank
from ptychoflow.trainer.models.classifier import untrained_classifier
from ptychoflow.trainer.pipelines.classification.offline.data import ImageData
from ptychoflow.trainer.pipelines.classification.offline.epochs import Shards
from ptychoflow.trainer.pipelines.classification.offline.evaluation import AccuracyEvaluator
from ptychoflow.trainer.pipelines.classification.offline.record import TrainingRecord
from ptychoflow.trainer.pipelines.classification.offline.schedule import TaskSchedule
from ptychoflow.trainer.pipelines.classification.settings import ClassificationSettings, ImageSettings
from ptychoflow.trainer.settings import StrategyName
from ptychoflow.trainer.training.optimizer import make_optimizer

Item = tuple[Tensor, Tensor, Tensor]
"""Image, label, logits."""


class Reservoir:
    """Keeps a uniform random part of all items that were ever added."""

    def __init__(self, capacity: int, *, seed: int) -> None:
        self.items: list[Item] = []
        self._capacity, self._added, self._random = capacity, 0, random.Random(seed)  # noqa: S311  no secret

    def add(self, item: Item) -> None:
        """Keep the item with probability capacity / items so far, in the place of a random one."""
        place = len(self.items) if len(self.items) < self._capacity else self._random.randrange(self._added + 1)
        self._added += 1
        if place < self._capacity:
            self.items[place : place + 1] = [item]

    def draw(self, count: int) -> list[Item]:
        """Return distinct items, fewer only while fewer exist."""
        return self._random.sample(self.items, min(count, len(self.items)))


def train_plainly(
    settings: ClassificationSettings,
    images: ImageSettings,
    data: ImageData,
    *,
    rank: Rank,
    seed: int,
    ranks: int,
) -> TrainingRecord:
    """Train on the same tasks with the samples of `ranks` ranks in each step; with `er`, or with `derpp` (β = 1)."""
    alpha = settings.distillation.alpha if settings.strategy is StrategyName.DERPP else 0.0
    batch, draw = settings.batch_size * ranks, settings.buffer.representatives * ranks
    tasks = deal_classes(data.classes, tasks=images.tasks, seed=seed)
    shards = Shards(data.files.train, tasks, sharding=images.sharding, world_size=1, seed=seed)
    evaluator = AccuracyEvaluator(data, tasks, rank=rank)
    torch.manual_seed(seed)
    network = untrained_classifier(images.classifier(settings.model, classes=data.classes)).to(rank.device)
    optimizer = make_optimizer(settings.optimizer, network.parameters(), rate=settings.learning_rate)
    schedule = TaskSchedule(settings.schedule, settings.learning_rate, minibatches=ranks)
    reservoir = Reservoir(settings.buffer.capacity, seed=seed)
    record = TrainingRecord(untrained=evaluator.evaluate(network.eval()))
    for task in range(len(tasks)):
        schedule.begin_task(step=record.steps, steps_per_epoch=shards.steps_per_epoch([task], batch_size=batch))
        for epoch in range(settings.epochs):
            network.train()
            began_s = time.monotonic()
            rows = shards.rows([task], rank=0, epoch=epoch)
            for minibatch in data.train.load([rows[first : first + batch] for first in range(0, len(rows), batch)]):
                new, old = (minibatch["image"], minibatch["label"]), reservoir.draw(draw)
                inputs = torch.cat([new[0], *(item[0][None] for item in old)]).to(rank.device)
                labels = torch.cat([new[1], *(item[1][None] for item in old)]).to(rank.device)
                logits = network(inputs)[0]
                loss = nn.functional.cross_entropy(logits, labels)
                if old and alpha > 0:
                    known = torch.stack([item[2] for item in old]).to(rank.device)
                    loss = loss + alpha * nn.functional.mse_loss(logits[len(new[1]) :], known)
                optimizer.param_groups[0]["lr"] = schedule.rate(record.steps, 0.0)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                for item in zip(*new, logits.detach().cpu(), strict=False):
                    reservoir.add(item)
                record.steps += 1
                record.samples += len(labels)
            record.seconds += time.monotonic() - began_s
        record.after_task.append(evaluator.evaluate(network.eval()))
    record.corrupt = data.corrupt
    return record
