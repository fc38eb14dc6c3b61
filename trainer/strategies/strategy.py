"""What the loop asks of a strategy."""

from __future__ import annotations

from typing import Protocol

from trainer.batch import Batch, Minibatch
from trainer.loss import PatchLoss
from trainer.models.ptychonn import Patches


class Strategy(Protocol):
    """Chooses what a step trains on, and its loss."""

    def gather(self, minibatch: Minibatch | None) -> Batch | None:
        """Return what this rank trains on next: the stream's samples, if any, and what the strategy adds.

        None if that is nothing. Samples of the stream come first and are never left out.
        """

    def loss(self, batch: Batch, output: Patches) -> PatchLoss:
        """Return the loss, summed over the samples, of the forward pass over a batch that `gather` returned."""
