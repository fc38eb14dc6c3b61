"""Accuracy on the validation images of every task."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from ptychoflow.acquisition.classification.tasks import Tasks
from ptychoflow.trainer.device import Rank
from ptychoflow.trainer.models.accuracy import is_correct
from ptychoflow.trainer.models.arithmetic import autocast
from ptychoflow.trainer.pipelines.classification.offline.data import ImageData

BATCH = 256


@dataclass(frozen=True)
class Accuracy:
    """Shares of the validation images of each task."""

    top1: list[float]
    top5: list[float]
    """The right class is among the five likeliest."""


class AccuracyEvaluator:
    """Evaluates networks; every rank takes its part of the images, results are those of all ranks.

    Args:
        data: holds the validation images.
        tasks: the classes of each.
        rank: this process.
    """

    def __init__(self, data: ImageData, tasks: Tasks, *, rank: Rank) -> None:
        self._loader, self._tasks, self._rank = data.val, tasks, rank
        task_of = {label: task for task, classes in enumerate(tasks) for label in classes}
        self._task_of_class = torch.tensor([task_of[label] for label in range(len(task_of))], device=rank.device)
        self._task_of_row = np.array([task_of[file.label] for file in data.files.val])

    @torch.inference_mode()
    def evaluate(self, network: nn.Module, *, tasks: int | None = None) -> Accuracy:
        """Return the accuracies of a network in evaluation mode, the same on all ranks. Collective.

        Raises UserError where too many files cannot be read.

        Args:
            network: from stored images to logits over all classes.
            tasks: evaluate on the first so many only.
        """
        count = len(self._tasks) if tasks is None else tasks
        device = self._rank.device
        sums = torch.zeros(len(self._tasks), 3, dtype=torch.float64, device=device)
        rows = np.flatnonzero(self._task_of_row < count)[self._rank.rank :: self._rank.world_size].tolist()
        batches = [rows[first : first + BATCH] for first in range(0, len(rows), BATCH)]
        for minibatch in self._loader.load(batches):
            label = minibatch["label"].to(device)
            with autocast(self._rank.precision, device):
                logits = network(minibatch["image"].to(device))[0]
            found = torch.stack([is_correct(logits, label, top=1), is_correct(logits, label, top=5)], dim=1)
            counted = torch.cat([found.double(), torch.ones(len(label), 1, device=device)], dim=1)
            sums.index_add_(0, self._task_of_class[label], counted.double())
        self._loader.corrupt.gather(device)
        if dist.is_initialized():
            dist.all_reduce(sums)
        shares = sums[:count, :2] / sums[:count, 2:].clamp(min=1)
        return Accuracy(top1=shares[:, 0].tolist(), top5=shares[:, 1].tolist())
