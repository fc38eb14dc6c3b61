"""Terms of the loss that all pipelines share."""

from __future__ import annotations

import torch
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


def squares(output: Tensor, activation: Tensor) -> Tensor:
    """Return the squared distance of every element to a stored activation; zero where that is not finite."""
    # A skipped step may have left such activations; they must not spoil the steps that draw them.
    usable = torch.where(activation.isfinite(), activation.float(), output.detach())
    return (output - usable).square()
