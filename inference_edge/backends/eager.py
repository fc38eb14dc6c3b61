"""PyTorch as it is."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch

from ptychoflow.inference_edge.backends.base import Backend, Runner
from ptychoflow.inference_edge.backends.name import BackendName
from ptychoflow.inference_edge.backends.prediction import PredictedChannels, Prediction, prediction_of
from ptychoflow.inference_edge.backends.staging import Staging
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
        staging = Staging(self.device, self.batch_max)
        ready = PredictedChannels(network).eval().to(self.device).to(memory_format=torch.channels_last)

        @torch.inference_mode()
        def run(counts: npt.NDArray[Any]) -> Prediction:
            with autocast(self.precision, self.device):
                channels = ready(staging.float32(counts))
            return prediction_of([channel.float().cpu().numpy() for channel in channels])

        return run
