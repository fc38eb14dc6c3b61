"""PyTorch as it is."""

from __future__ import annotations

import torch
from torch import Tensor

from ptychoflow.inference_edge.backends.base import Backend
from ptychoflow.inference_edge.backends.name import BackendName
from ptychoflow.inference_edge.backends.prediction import PredictedChannels
from ptychoflow.inference_edge.backends.runner import Runner
from ptychoflow.trainer.models.arithmetic import autocast
from ptychoflow.trainer.models.frame_network import FrameNetwork


class EagerBackend(Backend):
    """Runs the network operation by operation, in the memory layout that is fastest for convolutions."""

    name = BackendName.EAGER

    @classmethod
    def obstacle(cls, device: torch.device) -> str | None:
        """Return None: it runs everywhere."""
        return None

    def prepare(self, network: FrameNetwork) -> Runner:
        """Move the network to the device."""
        ready = PredictedChannels(network).eval().to(self.device).to(memory_format=torch.channels_last)

        def compute(counts: Tensor) -> tuple[Tensor, ...]:
            with autocast(self.precision, self.device):
                channels: tuple[Tensor, ...] = ready(counts)
            return channels

        return self._runner(compute)
