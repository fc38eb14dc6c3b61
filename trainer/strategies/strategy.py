"""What a strategy is, as the loop and the learner see it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from buffer import RehearsalBuffer
from trainer.agreement import Agreed
from trainer.batch import Batch, Minibatch
from trainer.loss import PatchLoss
from trainer.models.ptychonn import Patches


class Strategy(ABC):
    """Chooses what a step trains on, its loss, and what is kept of it.

    A step calls `gather`, then `after_forward` and `loss`. The latter two are left out on a rank that has nothing to
    train on, that is, where `gather` returned None.
    """

    stored: ClassVar[tuple[str, ...]] = ()
    """Fields of a sample that the buffer keeps, out of `trainer.batch.FIELDS` and `ACTIVATIONS`."""

    buffer: RehearsalBuffer | None = None
    """The rehearsal buffer, if the strategy has one."""

    @abstractmethod
    def gather(self, minibatch: Minibatch | None) -> Batch | None:
        """Return what this rank trains on next: the stream's samples, if any, and what the strategy adds.

        None if that is nothing. Samples of the stream come first and are never left out.
        """

    def after_forward(self, batch: Batch, output: Patches) -> None:
        """Keep what is worth keeping of the forward pass; work begun here hides behind the backward pass."""

    @abstractmethod
    def loss(self, batch: Batch, output: Patches, agreed: Agreed) -> PatchLoss:
        """Return this rank's share of the step's loss: the shares of all ranks add up to it.

        Args:
            batch: what `gather` returned.
            output: of the forward pass over it.
            agreed: how many samples all ranks have.
        """
