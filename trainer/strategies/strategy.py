"""What a strategy is, as the loop and the learner see it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from ptychoflow.buffer import RehearsalBuffer, Representatives
from ptychoflow.trainer.interface.agreement import Agreed
from ptychoflow.trainer.interface.batch import Batch, join
from ptychoflow.trainer.interface.pipeline import Minibatch, Output, Pipeline


class Strategy(ABC):
    """Chooses what a step trains on, its loss, and what is kept of it.

    A step calls `gather`, then `after_forward` and `loss`. The latter two are left out on a rank that has nothing to
    train on, that is, where `gather` returned None.

    Args:
        pipeline: what samples are, and how far outputs are from what they should be.
        device: where the network is trained.
    """

    buffer: RehearsalBuffer | None = None
    """The rehearsal buffer, if the strategy has one."""

    def __init__(self, pipeline: Pipeline, *, device: torch.device) -> None:
        self._pipeline, self._device = pipeline, device

    @abstractmethod
    def gather(self, minibatch: Minibatch | None) -> Batch | None:
        """Return what this rank trains on next: the stream's samples, if any, and what the strategy adds.

        None if that is nothing. Samples of the stream come first and are never left out.
        """

    def after_forward(self, batch: Batch, output: Output) -> None:
        """Keep what is worth keeping of the forward pass; work begun here hides behind the backward pass."""

    @abstractmethod
    def loss(self, batch: Batch, output: Output, agreed: Agreed) -> Tensor:
        """Return this rank's share of the step's loss: the shares of all ranks add up to it.

        Args:
            batch: what `gather` returned.
            output: of the forward pass over it.
            agreed: how many samples all ranks have.

        Returns:
            (terms,), which add up.
        """

    def close(self) -> None:
        """Close the buffer, if there is one."""
        if self.buffer is not None:
            self.buffer.close()

    def _join(self, minibatch: Minibatch | None, representatives: Representatives | None = None) -> Batch:
        return join(minibatch, representatives, pipeline=self._pipeline, device=self._device)


class Rehearsal(Strategy):
    """A strategy that keeps samples of the stream in a buffer and draws from it.

    Args:
        pipeline: what samples are, and how far outputs are from what they should be.
        buffer: has the fields `stored` and the pipeline's classes.
        device: where the network is trained.
        begins_at_items: representatives are used once the stores of all ranks hold so many items.
    """

    def __init__(
        self, pipeline: Pipeline, buffer: RehearsalBuffer, *, device: torch.device, begins_at_items: int = 0
    ) -> None:
        super().__init__(pipeline, device=device)
        self.buffer: RehearsalBuffer = buffer
        self._begins_at_items, self._begun = begins_at_items, False

    draws: ClassVar[int] = 1
    """How many representatives a step asks for, as a multiple of the configured number."""

    @staticmethod
    @abstractmethod
    def stored(pipeline: Pipeline) -> tuple[str, ...]:
        """Return the fields of a sample that the buffer keeps."""

    def _draw(self) -> Representatives | None:
        """Wait for the draw begun a step ago; None if it is empty, or while rehearsal has not begun."""
        representatives = self.buffer.take()
        if not self._begun:
            stats = self.buffer.stats()
            # ranks that this one does not hear of, because it keeps to its own items, count as much as those it does
            heard = stats.size_per_rank.values()
            self._begun = sum(heard) * stats.world_size >= self._begins_at_items * len(heard)
        return representatives if self._begun and len(representatives) > 0 else None

    def _offer(self, minibatch: Minibatch | None) -> None:
        """Store candidates of the minibatch, if any, and begin the next draw; both run in the background."""
        if minibatch is None:
            self.buffer.offer(None)
            return
        kept = {name: minibatch[name] for name in self.stored(self._pipeline)}
        self.buffer.offer(kept, labels=self._pipeline.labels(minibatch))
