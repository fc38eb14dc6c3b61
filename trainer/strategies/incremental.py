"""Incremental training: each sample of the stream once, nothing of the past. The lower bound."""

from __future__ import annotations

import torch

from trainer.agreement import Agreed
from trainer.batch import Batch, Minibatch, join
from trainer.loss import PatchLoss, absolute_error
from trainer.models.ptychonn import Patches
from trainer.strategies.strategy import Strategy


class Incremental(Strategy):
    """Trains on the stream's samples alone."""

    def __init__(self, *, device: torch.device) -> None:
        self._device = device

    def gather(self, minibatch: Minibatch | None) -> Batch | None:
        """Return the stream's samples."""
        return join(minibatch, {}, device=self._device) if minibatch else None

    def loss(self, batch: Batch, output: Patches, agreed: Agreed) -> PatchLoss:
        """Compare with the ground truth."""
        return absolute_error(output, batch.target).mean_over(agreed.samples)
