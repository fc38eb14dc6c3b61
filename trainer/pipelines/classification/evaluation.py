"""Accuracy on the validation images that came with a stream, task by task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ptychoflow.streaming.codec import Arrays
from ptychoflow.trainer.device import Rank
from ptychoflow.trainer.models.accuracy import is_correct
from ptychoflow.trainer.models.arithmetic import autocast
from ptychoflow.trainer.models.classifier import ImageClassifier
from ptychoflow.trainer.training.evaluation import Evaluation, means_by_perspective

BATCH = 256


@dataclass(frozen=True)
class TaskEvaluation(Evaluation):
    """Means over the validation images of each task; losses are cross-entropies.

    The constant is that of the best answer that can be given without looking at an image: every class seen as likely as
    it is among these images, on the mean over tasks.
    """

    top1: dict[int, float]
    top5: dict[int, float]
    """The right class is among the five likeliest."""


@torch.inference_mode()
def evaluate_tasks(
    network: ImageClassifier, samples: Mapping[int, Arrays], *, rank: Rank, limit: int | None
) -> TaskEvaluation | None:
    """Return what a network makes of the validation images, or None if no rank has one. Collective.

    Args:
        network: in evaluation mode, the same on all ranks.
        samples: this rank's validation samples by task.
        rank: this process.
        limit: images used on this rank at most, as in `means_by_perspective`.
    """

    def figures(part: dict[str, Tensor]) -> Tensor:
        with autocast(rank.precision, rank.device):
            logits = network(part["image"])[0].float()
        right = [is_correct(logits, part["label"], top=top).sum() for top in (1, 5)]
        loss = nn.functional.cross_entropy(logits, part["label"], reduction="sum")
        counts = torch.bincount(part["label"], minlength=network.config.classes)
        return torch.cat([torch.stack([*right, loss]), counts])

    width = 3 + network.config.classes
    means = means_by_perspective(samples, figures, figures=width, limit=limit, batch_size=BATCH, device=rank.device)
    if means is None:
        return None
    top1, top5, loss = ({task: found[place] for task, found in means.items()} for place in range(3))
    guessing = _best_constant({task: np.array(found[3:]) for task, found in means.items()})
    return TaskEvaluation(loss, guessing, top1=top1, top5=top5)


def _best_constant(shares: Mapping[int, npt.NDArray[np.float64]]) -> dict[int, float]:
    """Return the cross-entropy on each task of the one distribution for all images that is best on their mean.

    Args:
        shares: of the classes among the images of each task.
    """
    likely = np.mean(list(shares.values()), axis=0)
    return {task: -float(share[share > 0] @ np.log(likely[share > 0])) for task, share in shares.items()}
