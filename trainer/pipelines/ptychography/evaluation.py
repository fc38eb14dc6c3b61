"""Validation loss per perspective, over the validation frames of all ranks, beside that of the constant prediction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

import torch
import torch.distributed as dist
from torch import Tensor

from ptychoflow.streaming.codec import Arrays
from ptychoflow.trainer.models.arithmetic import autocast
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.precision import Precision
from ptychoflow.trainer.models.ptychonn import Patches
from ptychoflow.trainer.pipelines.ptychography.pipeline import absolute_error
from ptychoflow.trainer.training.validation import at_most, perspectives_on_any_rank

BATCH = 64


@dataclass(frozen=True)
class Evaluation:
    """L1 amplitude + L1 phase."""

    per_perspective: dict[int, float]
    constant_per_perspective: dict[int, float]
    """The same for always predicting the mean training patch."""

    @property
    def mean_over_seen(self) -> float:
        """Mean over perspectives."""
        return fmean(self.per_perspective.values())

    @property
    def constant(self) -> float:
        """The same mean for always predicting the mean training patch."""
        return fmean(self.constant_per_perspective.values())


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
            limit: frames used on this rank at most, so that the stream is not held up; None uses all. Every
                perspective keeps at least four, spread evenly over it.
        """
        chosen = at_most(samples, limit)
        sums = torch.zeros(perspectives_on_any_rank(samples, self._device), 3, dtype=torch.float64, device=self._device)
        for perspective, arrays in chosen.items():
            sums[perspective] = self._losses(network, constant, arrays)
        if dist.is_initialized():
            dist.all_reduce(sums)
        return _summary(sums)

    def _losses(self, network: FrameNetwork, constant: Patches, arrays: Arrays) -> Tensor:
        """Return (network's loss, constant's loss, frames), summed over the frames."""
        sums = torch.zeros(3, dtype=torch.float64, device=self._device)
        for start in range(0, len(arrays["diffraction"]), BATCH):
            part = {name: torch.from_numpy(array[start : start + BATCH]) for name, array in arrays.items()}
            target = Patches(
                amplitude=part["amplitude"].to(self._device).float(), phase=part["phase"].to(self._device).float()
            )
            with autocast(self._precision, self._device):
                output = network(part["diffraction"].to(self._device))
            sums[0] += absolute_error(output, target).sum()
            sums[1] += absolute_error(target, constant).sum()
            sums[2] += len(target.phase)
        return sums


def _summary(sums: Tensor) -> Evaluation | None:
    seen = (sums[:, 2] > 0).nonzero().flatten().tolist()
    if not seen:
        return None
    means = (sums[:, :2] / sums[:, 2:].clamp(min=1)).tolist()
    return Evaluation(
        per_perspective={perspective: means[perspective][0] for perspective in seen},
        constant_per_perspective={perspective: means[perspective][1] for perspective in seen},
    )
