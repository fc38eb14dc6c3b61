"""DER++: dark experience replay in which the representatives have their ground truth as well. Sources as in `der`."""

from __future__ import annotations

import torch
from torch import Tensor

from ptychoflow.trainer.interface.agreement import Agreed
from ptychoflow.trainer.interface.batch import Batch
from ptychoflow.trainer.interface.loss import share_of_mean
from ptychoflow.trainer.interface.pipeline import Output, Pipeline
from ptychoflow.trainer.strategies.der import DarkExperienceReplay


class DarkExperienceReplayPlusPlus(DarkExperienceReplay):
    """Adds the ground truth of the representatives, each with weight β beside a sample of the stream.

    The mean is weighted likewise, so that β = 1 is experience replay with distillation and β = 0 is `der`. A step
    without a minibatch learns from the representatives' ground truth and activations.
    """

    @staticmethod
    def stored(pipeline: Pipeline) -> tuple[str, ...]:
        """Keep samples with their ground truth and their activations."""
        return (pipeline.network_input, *pipeline.targets, *pipeline.activations)

    def loss(self, batch: Batch, output: Output, agreed: Agreed) -> Tensor:
        """Compare all samples with the ground truth, the representatives with their activations too."""
        beta = self._settings.beta
        error = self._pipeline.error(output, batch.target)
        weighted = torch.cat([error[: batch.stream], beta * error[batch.stream :]])
        truth = share_of_mean(weighted, agreed.stream + beta * agreed.representatives)
        return truth + self._distillation(batch, output, agreed)
