"""The loss: mean absolute error of amplitude plus that of phase (PtychoNN)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from trainer.models.ptychonn import Patches


class PatchLoss(NamedTuple):
    """Per channel, the sum over samples of the mean absolute error over pixels; float32 scalars."""

    amplitude: Tensor
    phase: Tensor

    @property
    def total(self) -> Tensor:
        """Both channels added."""
        return self.amplitude + self.phase


def no_loss() -> PatchLoss:
    """Return the sum over no samples."""
    return PatchLoss(torch.zeros(()), torch.zeros(()))


def absolute_error(output: Patches, target: Patches) -> PatchLoss:
    """Compare patches (n, y, x); a target (y, x) is compared with each of them."""
    return PatchLoss(
        amplitude=(output.amplitude - target.amplitude).abs().mean(dim=(1, 2)).sum(),
        phase=(output.phase - target.phase).abs().mean(dim=(1, 2)).sum(),
    )
