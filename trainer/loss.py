"""The terms of the loss: errors of both channels, summed over samples and divided by those of all ranks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.models.ptychonn import Patches


@dataclass(frozen=True)
class PatchLoss:
    """An error of amplitude and one of phase; float32 scalars."""

    amplitude: Tensor
    phase: Tensor

    @property
    def total(self) -> Tensor:
        """Both channels added."""
        return self.amplitude + self.phase

    def __add__(self, other: PatchLoss) -> PatchLoss:
        return PatchLoss(self.amplitude + other.amplitude, self.phase + other.phase)

    def __rmul__(self, factor: float) -> PatchLoss:
        return PatchLoss(factor * self.amplitude, factor * self.phase)

    def mean_over(self, samples: float) -> PatchLoss:
        """Return this rank's share of the mean, given the number of samples on all ranks; zero where there are none."""
        return (1.0 / samples if samples > 0 else 0.0) * self

    def detach(self) -> PatchLoss:
        """Return the values without their graph."""
        return PatchLoss(self.amplitude.detach(), self.phase.detach())


def no_loss() -> PatchLoss:
    """Return the sum over no samples."""
    return PatchLoss(torch.zeros(()), torch.zeros(()))


def absolute_error(output: Patches, target: Patches) -> PatchLoss:
    """Return the mean absolute error over pixels (PtychoNN), summed over samples.

    Patches are (n, y, x); a target (y, x) is compared with each of them.
    """
    return PatchLoss(
        amplitude=(output.amplitude - target.amplitude).abs().mean(dim=(1, 2)).sum(),
        phase=(output.phase - target.phase).abs().mean(dim=(1, 2)).sum(),
    )


def squared_distance(output: Patches, activation: Patches) -> PatchLoss:
    """Return the mean squared distance over pixels to stored activations (n, y, x), summed over samples."""
    return PatchLoss(
        amplitude=_squares(output.amplitude, activation.amplitude).mean(dim=(1, 2)).sum(),
        phase=_squares(output.phase, activation.phase).mean(dim=(1, 2)).sum(),
    )


def _squares(output: Tensor, activation: Tensor) -> Tensor:
    # A skipped step may have left activations that are not finite; they must not spoil the steps that draw them.
    usable = torch.where(activation.isfinite(), activation, output.detach())
    return (output - usable).square()
