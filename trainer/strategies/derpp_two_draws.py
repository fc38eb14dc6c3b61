"""DER++ with two draws, one for the ground truth and one for the activations, as its authors and the thesis draw.

The loss is not quite theirs: Buzzega et al. add up a mean error of the stream's samples, β times a mean error of one
draw and α times a mean distance of the other; here the errors of stream and draw share one mean, weighted with β. With
as many samples of the stream as of a draw and β = 1 that is half of their two errors, beside which α counts twice.

Sources as in `der`. A rank asks for both at once: a uniform draw, divided by chance, is two of them without an item in
common.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from ptychoflow.buffer import Representatives
from ptychoflow.trainer.interface.agreement import Agreed
from ptychoflow.trainer.interface.batch import Batch
from ptychoflow.trainer.interface.loss import share_of_mean
from ptychoflow.trainer.interface.pipeline import Output
from ptychoflow.trainer.settings import StrategyName
from ptychoflow.trainer.strategies.derpp import DarkExperienceReplayPlusPlus


class TwoDrawDarkExperienceReplayPlusPlus(DarkExperienceReplayPlusPlus):
    """DER++ in which one half of the representatives has its activations, the other its ground truth."""

    draws: ClassVar[int] = StrategyName.DERPP_TWO_DRAWS.draws

    with_truth: Tensor
    """Which representatives of the last step had their ground truth, bool (n,)."""

    def _draw(self) -> Representatives | None:
        """Return an even number of representatives; a buffer that has just begun may draw an odd one."""
        drawn = super()._draw()
        if drawn is None or len(drawn) < self.draws:
            return None
        even = len(drawn) // 2 * 2
        tensors = {name: tensor[:even] for name, tensor in drawn.tensors.items()}
        return replace(drawn, tensors=tensors, labels=drawn.labels[:even], ids=drawn.ids[:even])

    def loss(self, batch: Batch, output: Output, agreed: Agreed) -> Tensor:
        """Compare half of the representatives with their activations, all other samples with the ground truth."""
        count, beta = len(batch.ids), self._settings.beta
        self.with_truth = torch.randperm(count) < count // 2
        # rows rather than masks: how many a mask chooses, a GPU would be asked and waited for
        truth, activation = (
            rows.nonzero().flatten().to(batch.inputs.device, non_blocking=True)
            for rows in (self.with_truth, ~self.with_truth)
        )
        error = self._pipeline.error(output, batch.target)
        weighted = torch.cat([error[: batch.stream], beta * error[batch.stream :][truth]])
        known, remembered = (
            tuple(head[activation] for head in heads) for heads in (batch.of_representatives(output), batch.activation)
        )
        of_each_draw = agreed.representatives / self.draws
        distance = self._distance(known, remembered)
        return share_of_mean(weighted, agreed.stream + beta * of_each_draw) + self._settings.alpha * share_of_mean(
            distance, of_each_draw
        )
