"""Running the network on frames, on the device and with the backend that the configuration asks for."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ptychoflow.inference_edge.backends.base import Backend, Runner
from ptychoflow.inference_edge.backends.choice import fastest, usable_backends
from ptychoflow.inference_edge.prediction import Prediction, join_predictions
from ptychoflow.inference_edge.settings import DeviceChoice, EdgeSettings
from ptychoflow.streaming.errors import UserError
from ptychoflow.trainer.models.arithmetic import resolve
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.settings import NetworkConfig

log = logging.getLogger(__name__)

MEASURED_FRAMES = 8
WARM_UP_FRAMES = (2, 1)
"""What a backend still optimises in its first runs does not delay the first frames."""


class Imager:
    """Images frames on the chosen device. One thread may prepare networks while another predicts.

    Raises:
        UserError: CUDA or a backend is asked for that this host does not have.
    """

    def __init__(self, settings: EdgeSettings) -> None:
        device = choose_device(settings.device)
        precision = resolve(settings.precision, device)
        self._batch_max = settings.batch_max
        self._backends: list[Backend] = [
            backend(device, precision, threads=settings.threads, batch_max=settings.batch_max)
            for backend in usable_backends(settings.backend, device)
        ]
        self._chosen: tuple[NetworkConfig, Backend] | None = None
        log.info("inference on %s in %s", device, precision.value)

    def prepare(self, network: FrameNetwork) -> Runner:
        """Make a network ready; takes it over. The first of each layout is measured with every backend."""
        if self._chosen is None or self._chosen[0] != network.config:
            frames = np.ones((min(MEASURED_FRAMES, self._batch_max), *network.config.frame_shape_px), dtype=np.float32)
            backend = fastest(self._backends, network, frames)
            log.info("inference with %s", backend.name.value)
            self._chosen = network.config, backend
        runner = self._chosen[1].prepare(network)
        for count in WARM_UP_FRAMES:
            runner(np.ones((count, *network.config.frame_shape_px), dtype=np.float32))
        return runner

    def predict(self, runner: Runner, frames: npt.NDArray[Any]) -> Prediction:
        """Image frames (n, y, x) of counts with a prepared network, `batch_max` at a time."""
        starts = range(0, max(len(frames), 1), self._batch_max)
        return join_predictions(
            [runner(frames[i : i + self._batch_max].astype(np.float32, copy=False)) for i in starts]
        )


def choose_device(choice: DeviceChoice) -> torch.device:
    """Return the device asked for.

    Raises:
        UserError: it is CUDA and there is none.
    """
    if choice is DeviceChoice.CUDA and not torch.cuda.is_available():
        raise UserError('edge.device = "cuda": this host has no usable CUDA device; set edge.device to "auto" or "cpu"')
    if choice is DeviceChoice.AUTO:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(choice.value)
