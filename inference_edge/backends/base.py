"""What a backend is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy.typing as npt
import torch

from ptychoflow.inference_edge.backends.name import BackendName
from ptychoflow.inference_edge.backends.prediction import Prediction, join_predictions
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.precision import Precision

Runner: TypeAlias = Callable[[npt.NDArray[Any]], Prediction]
"""Maps counts (n, y, x) of any real dtype to patches that nobody else will write to. Not thread-safe."""


def run_in_batches(runner: Runner, frames: npt.NDArray[Any], *, batch_max: int) -> Prediction:
    """Run a network on any number of frames (n, y, x) of counts, `batch_max` at a time. Blocks."""
    starts = range(0, max(len(frames), 1), batch_max)
    return join_predictions([runner(frames[i : i + batch_max]) for i in starts])


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

    @classmethod
    @abstractmethod
    def obstacle(cls, device: torch.device) -> str | None:
        """Return why it cannot be used on `device`, and what to do about it; None where it can."""

    @abstractmethod
    def prepare(self, network: FrameNetwork) -> Runner:
        """Make a network ready to run. Takes the network over; may take some tenths of a second."""
