"""Experience replay: the stream's samples together with representatives of the past."""

from __future__ import annotations

import torch

from buffer import RehearsalBuffer
from trainer.agreement import Agreed
from trainer.batch import FIELDS, Batch, Minibatch, join
from trainer.loss import PatchLoss, absolute_error
from trainer.models.ptychonn import Patches
from trainer.strategies.strategy import Strategy


class ExperienceReplay(Strategy):
    """Joins every minibatch with a draw from the rehearsal buffer, with the ground truth of both.

    A step without a minibatch trains on the representatives alone.
    """

    stored = FIELDS

    def __init__(self, buffer: RehearsalBuffer, *, device: torch.device) -> None:
        self.buffer: RehearsalBuffer = buffer
        self._device = device

    def gather(self, minibatch: Minibatch | None) -> Batch | None:
        """Wait for the draw begun a step ago; insertion and the next draw run during this step."""
        representatives = self.buffer.take()
        self.buffer.offer(minibatch)
        if minibatch is None and len(representatives) == 0:
            return None
        return join(minibatch, representatives.tensors, device=self._device)

    def loss(self, batch: Batch, output: Patches, agreed: Agreed) -> PatchLoss:
        """Compare with the ground truth."""
        return absolute_error(output, batch.target).mean_over(agreed.samples)
