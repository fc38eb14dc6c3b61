"""Dark experience replay: representatives of the past stand for what the network once made of them.

Source: P. Buzzega et al., "Dark Experience for General Continual Learning: a Strong, Simple Baseline", NeurIPS 2020;
for PtychoNN as in T. Bouvier, "Distributed Rehearsal Buffers for Continual Learning at Scale", 2024, chapter 6.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from buffer import RehearsalBuffer
from trainer.agreement import Agreed
from trainer.batch import ACTIVATIONS, Batch, Minibatch, join
from trainer.loss import PatchLoss, absolute_error, squared_distance
from trainer.models.ptychonn import Patches
from trainer.settings import DistillationSettings
from trainer.strategies.strategy import Strategy


class DarkExperienceReplay(Strategy):
    """Joins every minibatch with a draw from the rehearsal buffer, with the activations stored when it was learnt.

    A step without a minibatch learns from the stored activations alone.
    """

    stored: ClassVar[tuple[str, ...]] = ("diffraction", *ACTIVATIONS)

    def __init__(self, buffer: RehearsalBuffer, settings: DistillationSettings, *, device: torch.device) -> None:
        self.buffer: RehearsalBuffer = buffer
        self._settings, self._device = settings, device

    def gather(self, minibatch: Minibatch | None) -> Batch | None:
        """Wait for the draw begun a step ago; the next begins after the forward pass, if there is one."""
        representatives = self.buffer.take()
        if minibatch is None and len(representatives) == 0:
            self.buffer.offer(None)
            return None
        return join(minibatch, representatives.tensors, device=self._device)

    def after_forward(self, batch: Batch, output: Patches) -> None:
        """Store the stream's samples with this pass's outputs; insertion and the next draw run during the rest."""
        if batch.minibatch is None:
            self.buffer.offer(None)
            return
        activations = (channel.detach().half() for channel in batch.of_stream(output))
        known = batch.minibatch | dict(zip(ACTIVATIONS, activations, strict=True))
        self.buffer.offer({name: known[name] for name in self.stored})

    def loss(self, batch: Batch, output: Patches, agreed: Agreed) -> PatchLoss:
        """Compare the stream's samples with the ground truth, the representatives with their activations."""
        new = absolute_error(batch.of_stream(output), batch.of_stream(batch.target))
        return new.mean_over(agreed.stream) + self._distillation(batch, output, agreed)

    def _distillation(self, batch: Batch, output: Patches, agreed: Agreed) -> PatchLoss:
        """α times the mean squared distance over all ranks' representatives, however many each rank has."""
        distance = squared_distance(batch.of_representatives(output), batch.activation)
        return self._settings.alpha * distance.mean_over(agreed.representatives)
