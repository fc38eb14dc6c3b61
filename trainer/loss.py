"""From errors of samples to this rank's share of a mean over all ranks."""

from __future__ import annotations

from torch import Tensor


def share_of_mean(errors: Tensor, samples: float) -> Tensor:
    """Return this rank's share of the mean error: shares of all ranks add up to it; zero where there are no samples.

    Args:
        errors: (n, terms), of this rank's samples.
        samples: their number on all ranks, or the sum of their weights.

    Returns:
        (terms,).
    """
    return errors.sum(dim=0) / samples if samples > 0 else 0.0 * errors.sum(dim=0)
