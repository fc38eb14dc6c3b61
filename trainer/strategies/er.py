"""Experience replay: the stream's samples together with representatives of the past."""

from __future__ import annotations

from torch import Tensor

from ptychoflow.trainer.interface.agreement import Agreed
from ptychoflow.trainer.interface.batch import Batch
from ptychoflow.trainer.interface.loss import share_of_mean
from ptychoflow.trainer.interface.pipeline import Minibatch, Output, Pipeline
from ptychoflow.trainer.strategies.strategy import Rehearsal


class ExperienceReplay(Rehearsal):
    """Joins every minibatch with a draw from the rehearsal buffer, with the ground truth of both.

    A step without a minibatch trains on the representatives alone.
    """

    @staticmethod
    def stored(pipeline: Pipeline) -> tuple[str, ...]:
        """Keep samples with their ground truth."""
        return (pipeline.network_input, *pipeline.targets)

    def gather(self, minibatch: Minibatch | None) -> Batch | None:
        """Wait for the draw begun a step ago; insertion and the next draw run during this step."""
        representatives = self._draw()
        self._offer(minibatch)
        if minibatch is None and representatives is None:
            return None
        return self._join(minibatch, representatives)

    def loss(self, batch: Batch, output: Output, agreed: Agreed) -> Tensor:
        """Compare with the ground truth."""
        return share_of_mean(self._pipeline.error(output, batch.target), agreed.samples)
