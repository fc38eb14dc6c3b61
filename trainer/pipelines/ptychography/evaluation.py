"""Validation loss of frames, L1 of the amplitude plus L1 of the phase, beside that of the mean training patch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ptychoflow.streaming.codec import Arrays
from ptychoflow.trainer.models.arithmetic import autocast
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.precision import Precision
from ptychoflow.trainer.models.ptychonn import Patches
from ptychoflow.trainer.pipelines.ptychography.pipeline import absolute_error
from ptychoflow.trainer.training.evaluation import Evaluation, means_by_perspective

BATCH = 64


class Evaluator:
    """Evaluates networks on this rank's share of the validation frames; results are those of all ranks.

    Args:
        precision: FLOAT32 or BFLOAT16.
        device: where the networks are.
    """

    def __init__(self, *, precision: Precision, device: torch.device) -> None:
        self._precision = precision
        self._device = device

    @torch.inference_mode()
    def evaluate(
        self, network: FrameNetwork, constant: Patches, samples: Mapping[int, Arrays], *, limit: int | None
    ) -> Evaluation | None:
        """Return the losses, or None if no rank has a validation frame. Collective.

        Args:
            network: in evaluation mode, the same on all ranks (`AveragedNetwork.share_statistics`).
            constant: the mean training patch (y, x).
            samples: this rank's validation samples by perspective.
            limit: frames used on this rank at most, as in `means_by_perspective`.
        """

        def losses(part: dict[str, Tensor]) -> Tensor:
            target = Patches(amplitude=part["amplitude"].float(), phase=part["phase"].float())
            with autocast(self._precision, self._device):
                output = network(part["diffraction"])
            return torch.stack([absolute_error(output, target).sum(), absolute_error(target, constant).sum()])

        means = means_by_perspective(samples, losses, figures=2, limit=limit, batch_size=BATCH, device=self._device)
        if means is None:
            return None
        return Evaluation(
            per_perspective={perspective: loss for perspective, (loss, _) in means.items()},
            constant_per_perspective={perspective: constant for perspective, (_, constant) in means.items()},
        )
