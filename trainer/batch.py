"""What one step trains on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.models.ptychonn import Patches

Minibatch = dict[str, Tensor]
"""Samples of the stream: `diffraction` (n, y, x) counts, `amplitude` and `phase` float16 (n, target y, target x)."""

FIELDS = ("diffraction", *Patches._fields)


@dataclass(frozen=True)
class Batch:
    """Samples of the stream followed by representatives; either may be none."""

    diffraction: Tensor
    target: Patches
    stream: int
    """The first `stream` samples are the stream's."""

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.diffraction)


def join(minibatch: Minibatch | None, representatives: Mapping[str, Tensor], *, device: torch.device) -> Batch:
    """Put the stream's samples in front of the representatives, on `device`."""
    parts = [part for part in (minibatch, representatives) if part]
    joined = {name: torch.cat([part[name].to(device) for part in parts]) for name in FIELDS}
    target = Patches(amplitude=joined["amplitude"].float(), phase=joined["phase"].float())
    return Batch(joined["diffraction"], target, stream=len(minibatch["diffraction"]) if minibatch else 0)
