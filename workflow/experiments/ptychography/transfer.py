"""What a matrix of losses says about learning and forgetting: the figures known for accuracies, turned round.

L[i][j] is the loss on perspective j after perspective i; all figures are means over perspectives. Sources: D. Lopez-Paz
and M. Ranzato, "Gradient episodic memory for continual learning" (2017), for the transfers; A. Chaudhry et al.,
"Riemannian walk for incremental learning" (2018), for forgetting.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

Matrix = Sequence[Sequence[float]]


def means_over_seen(losses: Matrix) -> list[float]:
    """Return, after each perspective, the mean loss on it and those before."""
    return [fmean(row[: place + 1]) for place, row in enumerate(losses)]


def forgetting(losses: Matrix) -> float | None:
    """Return by how much losses have risen from their lowest to the end, over all perspectives but the last."""
    last = len(losses) - 1
    rises = [losses[last][j] - min(row[j] for row in losses[j:last]) for j in range(last)]
    return fmean(rises) if rises else None


def backward_transfer(losses: Matrix) -> float | None:
    """Return by how much later perspectives have lowered the loss on earlier ones; negative where they forget."""
    gains = [losses[j][j] - losses[-1][j] for j in range(len(losses) - 1)]
    return fmean(gains) if gains else None


def forward_transfer(losses: Matrix, untrained: Sequence[float]) -> float | None:
    """Return by how much earlier perspectives have lowered the loss on one before it is learnt.

    Args:
        losses: L.
        untrained: the loss of the untrained network on every perspective.
    """
    gains = [untrained[j] - losses[j - 1][j] for j in range(1, len(losses))]
    return fmean(gains) if gains else None
