"""Accuracy on the validation images that came with a stream, task by task."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ptychoflow.streaming.codec import Arrays
from ptychoflow.trainer.device import Rank
from ptychoflow.trainer.models.accuracy import is_correct
from ptychoflow.trainer.models.arithmetic import autocast
from ptychoflow.trainer.models.classifier import ImageClassifier
from ptychoflow.trainer.pipelines.classification.offline.evaluation import BATCH
from ptychoflow.trainer.training.validation import at_most, perspectives_on_any_rank


@dataclass(frozen=True)
class TaskEvaluation:
    """Means over the validation images of each task; a task without any is left out."""

    top1: dict[int, float]
    top5: dict[int, float]
    """The right class is among the five likeliest."""
    loss: dict[int, float]
    """Cross-entropy."""
    guessing: float
    """The cross-entropy of guessing among all classes."""

    @property
    def mean_loss(self) -> float:
        """Mean over tasks."""
        return fmean(self.loss.values())


@torch.inference_mode()
def evaluate_tasks(
    network: ImageClassifier, samples: Mapping[int, Arrays], *, rank: Rank, limit: int | None
) -> TaskEvaluation | None:
    """Return what a network makes of the validation images, or None if no rank has one. Collective.

    Args:
        network: in evaluation mode, the same on all ranks.
        samples: this rank's validation samples by task.
        rank: this process.
        limit: images used on this rank at most; None uses all.
    """
    sums = torch.zeros(perspectives_on_any_rank(samples, rank.device), 4, dtype=torch.float64, device=rank.device)
    for task, arrays in at_most(samples, limit).items():
        for start in range(0, len(arrays["label"]), BATCH):
            images, label = (torch.from_numpy(arrays[name][start : start + BATCH]) for name in ("image", "label"))
            sums[task] += _figures(network, images.to(rank.device), label.to(rank.device), rank=rank)
    if dist.is_initialized():
        dist.all_reduce(sums)
    seen = (sums[:, 3] > 0).nonzero().flatten().tolist()
    if not seen:
        return None
    top1, top5, loss = (sums[:, :3] / sums[:, 3:].clamp(min=1)).T.tolist()
    return TaskEvaluation(
        top1={task: top1[task] for task in seen},
        top5={task: top5[task] for task in seen},
        loss={task: loss[task] for task in seen},
        guessing=math.log(network.config.classes),
    )


def _figures(network: ImageClassifier, images: Tensor, label: Tensor, *, rank: Rank) -> Tensor:
    """Return (right, right among five, cross-entropy, images), summed over the images."""
    with autocast(rank.precision, rank.device):
        logits = network(images)[0].float()
    right = [is_correct(logits, label, top=top).sum() for top in (1, 5)]
    loss = nn.functional.cross_entropy(logits, label, reduction="sum")
    return torch.stack([*right, loss, torch.tensor(len(label), device=label.device)]).double()
