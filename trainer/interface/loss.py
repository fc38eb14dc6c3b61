"""Terms of the loss that all pipelines share."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ptychoflow.trainer.settings import Distance


def share_of_mean(errors: Tensor, samples: float) -> Tensor:
    """Return this rank's share of the mean error: shares of all ranks add up to it; zero where there are no samples.

    Args:
        errors: (n, terms), of this rank's samples.
        samples: their number on all ranks, or the sum of their weights.

    Returns:
        (terms,).
    """
    return errors.sum(dim=0) / samples if samples > 0 else 0.0 * errors.sum(dim=0)


Elementwise = Callable[[Tensor, Tensor], Tensor]
"""Distance of every element of an output to a stored activation; zero where that is not finite."""

HUBER_DELTA = 0.1


def _squared(output: Tensor, activation: Tensor) -> Tensor:
    return (output - _usable(output, activation)).square()


def _absolute(output: Tensor, activation: Tensor) -> Tensor:
    return (output - _usable(output, activation)).abs()


def _huber(output: Tensor, activation: Tensor) -> Tensor:
    usable = _usable(output, activation)
    return nn.functional.huber_loss(output, usable, reduction="none", delta=HUBER_DELTA)


def _usable(output: Tensor, activation: Tensor) -> Tensor:
    # A skipped step may have left activations that are not finite; they must not spoil the steps that draw them.
    values = activation.float()
    # finite numbers alone are nothing less themselves; `isfinite` takes several times as long
    return torch.where(values - values == 0, values, output.detach())


DISTANCES: Mapping[Distance, Elementwise] = {
    Distance.SQUARED: _squared,
    Distance.ABSOLUTE: _absolute,
    Distance.HUBER: _huber,
}
