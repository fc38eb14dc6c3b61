"""What one step trains on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.models.ptychonn import Patches

Minibatch = dict[str, Tensor]
"""Samples of the stream: `diffraction` (n, y, x) counts, `amplitude` and `phase` float16 (n, target y, target x)."""

FIELDS = ("diffraction", *Patches._fields)
"""Of a sample."""

ACTIVATIONS = ("activation_amplitude", "activation_phase")
"""What the network made of a sample when it was learnt: the outputs of both heads, float16, shaped as the patches."""


@dataclass(frozen=True)
class Batch:
    """Samples of the stream followed by representatives; either may be none."""

    diffraction: Tensor
    target: Patches
    """Ground truth of all samples, or of the stream's alone where the buffer does not store it."""
    activation: Patches
    """The representatives' stored activations; none where the buffer does not store them."""
    minibatch: Minibatch | None
    """The samples of the stream as they came."""

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.diffraction)

    @property
    def stream(self) -> int:
        """The first `stream` samples are the stream's."""
        return len(self.minibatch["diffraction"]) if self.minibatch else 0

    def of_stream(self, patches: Patches) -> Patches:
        """Return the rows of the stream's samples."""
        return Patches(*(channel[: self.stream] for channel in patches))

    def of_representatives(self, patches: Patches) -> Patches:
        """Return the rows of the representatives."""
        return Patches(*(channel[self.stream :] for channel in patches))


def join(minibatch: Minibatch | None, representatives: Mapping[str, Tensor], *, device: torch.device) -> Batch:
    """Put the stream's samples in front of the representatives, on `device`; one of the two must be there."""
    parts = [part for part in (minibatch, representatives) if part]
    return Batch(
        diffraction=torch.cat([part["diffraction"].to(device) for part in parts]),
        target=Patches(*(_joined(name, parts, device=device) for name in Patches._fields)),
        activation=Patches(*(_joined(name, [representatives], device=device) for name in ACTIVATIONS)),
        minibatch=minibatch,
    )


def _joined(name: str, parts: Sequence[Mapping[str, Tensor]], *, device: torch.device) -> Tensor:
    """Return float32 (n, y, x) of the parts that have the field; (0, 1, 1) if none has."""
    found = [part[name].to(device) for part in parts if name in part]
    return torch.cat(found).float() if found else torch.zeros(0, 1, 1, device=device)
