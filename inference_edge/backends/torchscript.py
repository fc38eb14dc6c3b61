"""PyTorch's TorchScript: needs no compiler, and folds batch norm into the convolutions."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from ptychoflow.inference_edge.backends.base import Backend
from ptychoflow.inference_edge.backends.name import BackendName
from ptychoflow.inference_edge.backends.prediction import PredictedChannels
from ptychoflow.inference_edge.backends.runner import Runner
from ptychoflow.trainer.models.arithmetic import autocast
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.precision import Precision

EXAMPLE_FRAMES = 2
"""A batch of one would be traced as a shape that never changes."""


class TorchScriptBackend(Backend):
    """Traces and freezes the network."""

    name = BackendName.TORCHSCRIPT

    @classmethod
    def obstacle(cls, device: torch.device) -> str | None:
        """Return None: it runs everywhere."""
        return None

    def prepare(self, network: FrameNetwork) -> Runner:
        """Trace the network on the device."""
        channels_last = network.to(memory_format=torch.channels_last)
        return self._runner(trace(channels_last, device=self.device, precision=self.precision))


@torch.no_grad()
def trace(network: FrameNetwork, *, device: torch.device, precision: Precision = Precision.FLOAT32) -> Any:
    """Return the frozen script of a network on `device`; takes any number of frames, float32 (n, y, x)."""
    example = torch.ones((EXAMPLE_FRAMES, *network.config.frame_shape_px), device=device)
    with (
        warnings.catch_warnings(category=FutureWarning, action="ignore"),
        autocast(precision, device, cached=False),
    ):
        traced = torch.jit.trace(PredictedChannels(network).eval().to(device), example, check_trace=False)  # type: ignore[no-untyped-call]
        return torch.jit.freeze(traced)
