"""Ptychography as strategies and the learner see it."""

from __future__ import annotations

import torch
from torch import Tensor

from ptychoflow.buffer import Field
from ptychoflow.buffer.schema import DTypeName
from ptychoflow.trainer.interface.loss import Elementwise
from ptychoflow.trainer.interface.pipeline import Output, Pipeline
from ptychoflow.trainer.models.ptychonn import Patches

FIELDS = ("diffraction", *Patches._fields)
"""Of a sample of the stream: counts (n, y, x), patches float16 (n, target y, target x)."""

ACTIVATIONS = ("activation_amplitude", "activation_phase")
"""Outputs of both heads, shaped as the patches."""


class Ptychography(Pipeline):
    """Frames and patches; an error of amplitude and one of phase.

    Args:
        frame_shape_px: (y, x) of a frame.
        target_shape_px: (y, x) of a patch.
        frame_dtype: of the frames.
    """

    network_input = "diffraction"
    targets = Patches._fields
    activations = ACTIVATIONS

    def __init__(
        self, frame_shape_px: tuple[int, int], target_shape_px: tuple[int, int], *, frame_dtype: DTypeName = "uint16"
    ) -> None:
        patch = Field(target_shape_px, "float16")
        self.fields = {"diffraction": Field(frame_shape_px, frame_dtype)} | dict.fromkeys(
            (*self.targets, *self.activations), patch
        )

    def error(self, output: Output, target: Output) -> Tensor:
        """Return the absolute errors of `absolute_error`."""
        return absolute_error(Patches(*output), Patches(*target))

    def distance(self, output: Output, activation: Output, elementwise: Elementwise) -> Tensor:
        """Return the mean distance over pixels, per head."""
        pairs = zip(output, activation, strict=True)
        return torch.stack([elementwise(found, known).mean(dim=(1, 2)) for found, known in pairs], dim=1)


def absolute_error(output: Patches, target: Patches) -> Tensor:
    """Return the mean absolute error over pixels (PtychoNN) of amplitude and phase, (n, 2).

    Patches are (n, y, x); a target (y, x) is compared with each of them.
    """
    pairs = zip(output, target, strict=True)
    return torch.stack([(found - true.float()).abs().mean(dim=(1, 2)) for found, true in pairs], dim=1)
