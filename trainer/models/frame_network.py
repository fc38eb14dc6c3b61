"""The network as the trainer and the edge use it: raw detector counts in, named patches out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ptychoflow.trainer.models.ptychonn import Patches, PtychoNN
from ptychoflow.trainer.models.ptychonn_settings import InputTransform, NetworkConfig


class FrameNetwork(nn.Module):
    """Input transform followed by a PtychoNN.

    The input is `transform(counts) * input_scale`; `input_scale` is a scalar buffer, so it travels with the weights.
    """

    input_scale: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("input_scale", torch.ones(()))
        self.ptychonn = PtychoNN(config)

    def forward(self, counts: Tensor) -> Patches:
        """Predict the patches of frames.

        Args:
            counts: (n, y, x) or (n, 1, y, x), any integer or float dtype; negative counts are taken as 0.

        Returns:
            Patches of float32 (n, target y, target x); phase within ±π, amplitude within (0, amplitude_scale).
        """
        frames = counts.unsqueeze(1) if counts.ndim == 3 else counts
        patches: Patches = self.ptychonn(self.transform(frames) * self.input_scale)
        return patches

    def transform(self, counts: Tensor) -> Tensor:
        """Return the input before scaling, float32, same shape as `counts`."""
        values = counts.to(torch.float32).clamp_(min=0.0) if counts.dtype != torch.float32 else counts.clamp(min=0.0)
        return values.sqrt() if self.config.model.input_transform is InputTransform.SQRT else values

    @torch.no_grad()
    def input_power(self, counts: Tensor) -> float:
        """Return the mean square of the input before scaling, over frames (n, y, x)."""
        return self.transform(counts).square().mean().item()

    def scale_input_to(self, power: float) -> None:
        """Choose `input_scale` so that inputs of this mean square get 1; dark frames (0) keep the scale 1."""
        self.input_scale.fill_(power**-0.5 if power > 0.0 else 1.0)
