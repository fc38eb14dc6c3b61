"""What a matrix of losses says about learning and forgetting: the figures known for accuracies, turned round.

L[i][j] is the loss on perspective j after perspective i; all figures are means over perspectives. A loss with its sign
changed is as good as an accuracy, so the formulas and their sources are those of `trainer.continual_metrics`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ptychoflow.trainer import continual_metrics
from ptychoflow.trainer.continual_metrics import Matrix, average_over_seen


def means_over_seen(losses: Matrix) -> list[float]:
    """Return, after each perspective, the mean loss on it and those before."""
    return [average_over_seen(row, task=place) for place, row in enumerate(losses)]


def forgetting(losses: Matrix) -> float | None:
    """Return by how much losses have risen from their lowest to the end, over all perspectives but the last."""
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
