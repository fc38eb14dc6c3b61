"""The pixel-wise mean of the training patches: the prediction that a network has to beat."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from ptychoflow.trainer.checkpoints.state_file import State, copies
from ptychoflow.trainer.models.ptychonn import Patches


class MeanPatch:
    """Sums the stream's training patches on this rank; a mean over all ranks on demand.

    Args:
        target_shape_px: (y, x) of a patch.
        device: where the sums are kept; the device of the process group's collectives.
    """

    def __init__(self, target_shape_px: tuple[int, int], *, device: torch.device) -> None:
        self._sums = torch.zeros(2, *target_shape_px, dtype=torch.float32, device=device)
        self._samples = torch.zeros(1, dtype=torch.float64, device=device)
        self._largest_amplitude = torch.zeros((), device=device)

    def accumulate(self, patches: Patches, *, first: int) -> None:
        """Add the first `first` of the patches (n, y, x), at least one."""
        self._sums += torch.stack([patch[:first].float().sum(dim=0) for patch in patches])
        self._samples += first
        self._largest_amplitude = torch.maximum(self._largest_amplitude, patches.amplitude[:first].max().float())

    def largest_amplitude(self) -> float:
        """Return the largest amplitude that this rank has seen since it began; 0 before any."""
        return self._largest_amplitude.item()

    def over_all_ranks(self) -> Patches:
        """Return the mean (y, x) over all ranks; amplitude 1 and phase 0 before any sample. Collective."""
        sums, samples = self._sums.clone(), self._samples.clone()
        if dist.is_initialized():
            dist.all_reduce(sums)
            dist.all_reduce(samples)
        return _mean(sums, samples)

    def state(self) -> State:
        """Return this rank's sums, as copies on the CPU."""
        return copies({"sums": self._sums, "samples": self._samples})

    def restore(self, states: Sequence[State]) -> None:
        """Take over the sums of some ranks, or of none."""
        for state in states:
            self._sums += state["sums"].to(self._sums.device)
            self._samples += state["samples"].to(self._samples.device)

    def on_this_rank(self) -> Patches:
        """Return the mean (y, x) over this rank's samples; amplitude 1 and phase 0 before any."""
        return _mean(self._sums, self._samples)


def _mean(sums: Tensor, samples: Tensor) -> Patches:
    if samples.item() == 0:
        return Patches(amplitude=torch.ones_like(sums[0]), phase=torch.zeros_like(sums[1]))
    amplitude, phase = sums / samples.float()
    return Patches(amplitude=amplitude, phase=phase)
