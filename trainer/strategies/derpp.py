"""DER++: dark experience replay in which the representatives have their ground truth as well. Sources as in `der`."""

from __future__ import annotations

from trainer.agreement import Agreed
from trainer.batch import ACTIVATIONS, FIELDS, Batch
from trainer.loss import PatchLoss, absolute_error
from trainer.models.ptychonn import Patches
from trainer.strategies.der import DarkExperienceReplay


class DarkExperienceReplayPlusPlus(DarkExperienceReplay):
    """Adds the ground truth of the representatives, each with weight β beside a sample of the stream.

    The mean is weighted likewise, so that β = 1 is experience replay with distillation and β = 0 is `der`. A step
    without a minibatch learns from the representatives' ground truth and activations.
    """

    stored = (*FIELDS, *ACTIVATIONS)

    def loss(self, batch: Batch, output: Patches, agreed: Agreed) -> PatchLoss:
        """Compare all samples with the ground truth, the representatives with their activations too."""
        beta = self._settings.beta
        new = absolute_error(batch.of_stream(output), batch.of_stream(batch.target))
        old = absolute_error(batch.of_representatives(output), batch.of_representatives(batch.target))
        truth = (new + beta * old).mean_over(agreed.stream + beta * agreed.representatives)
        return truth + self._distillation(batch, output, agreed)
