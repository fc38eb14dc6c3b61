"""Dark experience replay: representatives of the past stand for what the network once made of them.

Source: P. Buzzega et al., "Dark Experience for General Continual Learning: a Strong, Simple Baseline", NeurIPS 2020;
for several heads as in T. Bouvier, "Distributed Rehearsal Buffers for Continual Learning at Scale", 2024, chapter 6.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ptychoflow.buffer import RehearsalBuffer
from ptychoflow.trainer.interface.agreement import Agreed
from ptychoflow.trainer.interface.batch import Batch
from ptychoflow.trainer.interface.loss import DISTANCES, share_of_mean
from ptychoflow.trainer.interface.pipeline import Minibatch, Output, Pipeline
from ptychoflow.trainer.settings import DistillationSettings
from ptychoflow.trainer.strategies.strategy import Rehearsal


class DarkExperienceReplay(Rehearsal):
    """Joins every minibatch with a draw from the rehearsal buffer, with the activations stored when it was learnt.

    A step without a minibatch learns from the stored activations alone.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        buffer: RehearsalBuffer,
        *,
        settings: DistillationSettings,
        device: torch.device,
        begins_at_items: int = 0,
    ) -> None:
        super().__init__(pipeline, buffer, device=device, begins_at_items=begins_at_items)
        self._settings = settings

    @staticmethod
    def stored(pipeline: Pipeline) -> tuple[str, ...]:
        """Keep samples with their activations."""
        return (pipeline.network_input, *pipeline.activations)

    def gather(self, minibatch: Minibatch | None) -> Batch | None:
        """Wait for the draw begun a step ago; the next begins after the forward pass, if there is one."""
        representatives = self._draw()
        if minibatch is None and representatives is None:
            self._offer(None)
            return None
        return self._join(minibatch, representatives)

    def after_forward(self, batch: Batch, output: Output) -> None:
        """Store the stream's samples with this pass's outputs; insertion and the next draw run during the rest."""
        if batch.minibatch is None:
            self._offer(None)
            return
        activations = (head.detach().half() for head in batch.of_stream(output))
        self._offer(batch.minibatch | dict(zip(self._pipeline.activations, activations, strict=True)))

    def loss(self, batch: Batch, output: Output, agreed: Agreed) -> Tensor:
        """Compare the stream's samples with the ground truth, the representatives with their activations."""
        new = self._pipeline.error(batch.of_stream(output), batch.of_stream(batch.target))
        return share_of_mean(new, agreed.stream) + self._distillation(batch, output, agreed)

    def _distillation(self, batch: Batch, output: Output, agreed: Agreed) -> Tensor:
        """α times the mean distance over all ranks' representatives, however many each rank has."""
        distance = self._distance(batch.of_representatives(output), batch.activation)
        return self._settings.alpha * share_of_mean(distance, agreed.representatives)

    def _distance(self, output: Output, activation: Output) -> Tensor:
        return self._pipeline.distance(output, activation, DISTANCES[self._settings.distance])
