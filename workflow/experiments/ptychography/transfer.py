"""What a matrix of losses says about learning and forgetting: the figures known for accuracies, turned round.

L[i][j] is the loss on perspective j after perspective i; all figures are means over perspectives. A loss with its sign
changed is as good as an accuracy, so the formulas and their sources are those of `trainer.continual_metrics`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from ptychoflow.trainer import continual_metrics
from ptychoflow.trainer.continual_metrics import Matrix, average_over_seen


def means_over_seen(losses: Matrix, learnt: Sequence[int], validated: Sequence[int]) -> dict[int, float]:
    """Return, by perspective after which it was, the mean loss on it and those before.

    One that comes before all that have validation frames is left out.

    Args:
        losses: a row for each perspective that was learnt, a column for each that has validation frames.
        learnt: the perspectives of the rows, rising.
        validated: those of the columns, rising.
    """
    seen = [bisect_right(validated, perspective) for perspective in learnt]
    return {
        perspective: average_over_seen(row, task=count - 1)
        for perspective, row, count in zip(learnt, losses, seen, strict=True)
        if count > 0
    }


def of_both(losses: Matrix, learnt: Sequence[int], validated: Sequence[int]) -> list[list[float]]:
    """Return L of the perspectives that were learnt and have validation frames; the arguments as above."""
    both = set(learnt) & set(validated)
    rows = [row for row, perspective in zip(losses, learnt, strict=True) if perspective in both]
    return [[loss for loss, perspective in zip(row, validated, strict=True) if perspective in both] for row in rows]


def forgetting(losses: Matrix) -> float | None:
    """Return by how much losses have risen to the end from their lowest since the perspective was learnt.

    The mean over all perspectives but the last.
    """
    return continual_metrics.forgetting(_negative(losses))


def backward_transfer(losses: Matrix) -> float | None:
    """Return by how much later perspectives have lowered the loss on earlier ones; negative where they forget."""
    return continual_metrics.backward_transfer(_negative(losses))


def forward_transfer(losses: Matrix, untrained: Sequence[float]) -> float | None:
    """Return by how much earlier perspectives have lowered the loss on one before it is learnt.

    Args:
        losses: L.
        untrained: the loss of the untrained network on every perspective.
    """
    return continual_metrics.forward_transfer(_negative(losses), _negative([untrained])[0])


def _negative(losses: Matrix) -> list[list[float]]:
    return [[-loss for loss in row] for row in losses]
