"""What a matrix of accuracies says about learning and forgetting.

R[i][j] is the accuracy on task j after task i, i and j from 0. Sources: D. Lopez-Paz and M. Ranzato, "Gradient episodic
memory for continual learning" (2017), for the transfers; A. Chaudhry et al., "Riemannian walk for incremental learning"
(2018), for forgetting; T. Bouvier (2024), eq. 5.1, for the average.

Chaudhry et al. look for the best accuracy on task j in all rows before the last; here only rows from j on count, in
which the task has been learnt. Where classes come task by task that is the same: before, none of the task's classes is
named. Where accuracies may be high before (perspectives that are alike), what is lost of that was not learnt from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

Matrix = Sequence[Sequence[float]]


def average_over_seen(row: Sequence[float], *, task: int) -> float:
    """Return the mean accuracy over the tasks 0 to `task`, given the accuracies on all tasks (eq. 5.1)."""
    return fmean(row[: task + 1])


def forgetting(accuracy: Matrix) -> float | None:
    """Return how far accuracies are in the end below their best since the task was learnt; the mean without the last.

    Negative where they are higher than ever. Rows need no more than the tasks so far.
    """
    tasks = len(accuracy)
    falls = [max(row[j] for row in accuracy[j:-1]) - accuracy[-1][j] for j in range(tasks - 1)]
    return fmean(falls) if falls else None


def backward_transfer(accuracy: Matrix) -> float | None:
    """Return how much later tasks have added to the accuracy on earlier ones; negative where they are forgotten."""
    changes = [accuracy[-1][j] - accuracy[j][j] for j in range(len(accuracy) - 1)]
    return fmean(changes) if changes else None


def forward_transfer(accuracy: Matrix, untrained: Sequence[float]) -> float | None:
    """Return how much earlier tasks have added to the accuracy on a task before it is learnt.

    Args:
        accuracy: R.
        untrained: the accuracy of the untrained network on every task.
    """
    gains = [accuracy[j - 1][j] - untrained[j] for j in range(1, len(accuracy))]
    return fmean(gains) if gains else None
