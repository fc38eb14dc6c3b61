"""Incremental training: each sample of the stream once, nothing of the past. The lower bound."""

from __future__ import annotations

from torch import Tensor

from ptychoflow.trainer.interface.agreement import Agreed
from ptychoflow.trainer.interface.batch import Batch
from ptychoflow.trainer.interface.loss import share_of_mean
from ptychoflow.trainer.interface.pipeline import Minibatch, Output
from ptychoflow.trainer.strategies.strategy import Strategy


class Incremental(Strategy):
    """Trains on the stream's samples alone."""

    def gather(self, minibatch: Minibatch | None) -> Batch | None:
        """Return the stream's samples."""
        return self._join(minibatch) if minibatch else None

    def loss(self, batch: Batch, output: Output, agreed: Agreed) -> Tensor:
        """Compare with the ground truth."""
        return share_of_mean(self._pipeline.error(output, batch.target), agreed.samples)
