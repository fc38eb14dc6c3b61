"""What a backend is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from ptychoflow.inference_edge.backends.name import BackendName
from ptychoflow.inference_edge.backends.overlapped_runner import CopyStreams, OverlappedRunner
from ptychoflow.inference_edge.backends.prediction import Prediction, prediction_of
from ptychoflow.inference_edge.backends.runner import ImmediateRunner, Runner
from ptychoflow.inference_edge.backends.staging import Staging
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.precision import Precision


class Backend(ABC):
    """Makes runners of networks.

    Args:
        device: where they run.
        precision: FLOAT32 or BFLOAT16, what convolutions compute in.
        threads: processor threads for one inference.
        batch_max: frames that a runner is given at most.
    """

    name: BackendName

    def __init__(self, device: torch.device, precision: Precision, *, threads: int, batch_max: int) -> None:
        self.device, self.precision = device, precision
        self.threads, self.batch_max = threads, batch_max
        self._copying = CopyStreams(device) if device.type == "cuda" else None

    @classmethod
    @abstractmethod
    def obstacle(cls, device: torch.device) -> str | None:
        """Return why it cannot be used on `device`, and what to do about it; None where it can."""

    @abstractmethod
    def prepare(self, network: FrameNetwork) -> Runner:
        """Make a network ready to run. Takes the network over; may take some tenths of a second."""

    def _runner(self, network: Callable[[Tensor], Sequence[Tensor]]) -> Runner:
        """Return what runs a network that maps counts, float32 (n, y, x) on the device, to new channels."""
        if self._copying is not None:
            return OverlappedRunner(network, self._copying)
        staging = Staging(self.batch_max)

        @torch.inference_mode()
        def run(counts: npt.NDArray[Any]) -> Prediction:
            return prediction_of([channel.float().numpy() for channel in network(staging.float32(counts))])

        return ImmediateRunner(run)
