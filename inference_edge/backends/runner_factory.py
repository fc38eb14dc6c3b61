"""Makes networks ready to run, on the device and with the backend that the configuration asks for."""

from __future__ import annotations

import logging

import numpy as np

from ptychoflow.inference_edge.backends.base import Backend
from ptychoflow.inference_edge.backends.choice import fastest, usable_backends
from ptychoflow.inference_edge.backends.runner import Runner
from ptychoflow.inference_edge.device import choose_device
from ptychoflow.inference_edge.settings import EdgeSettings
from ptychoflow.trainer.models.arithmetic import resolve
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.ptychonn_settings import NetworkConfig

log = logging.getLogger(__name__)

MEASURED_FRAMES = 8
WARM_UP_FRAMES = (2, 1)
"""What a backend still optimises in its first runs does not delay the first frames."""
FULL_WARM_UPS = 3
"""On a GPU, where TorchScript compiles for the first sizes that come: those of full batches first."""


class RunnerFactory:
    """Makes runners of networks, while another thread uses those made before.

    Raises:
        UserError: CUDA or a backend is asked for that this host does not have.
    """

    def __init__(self, settings: EdgeSettings) -> None:
        self.batch_max = settings.batch_max
        """Frames that a runner is given at most."""
        device = choose_device(settings.device, gpu=settings.gpu)
        self.on_gpu = device.type == "cuda"
        self.processors = 1 if self.on_gpu else settings.threads
        """That networks keep busy; a GPU needs one that feeds it."""
        precision = resolve(settings.precision, device)
        self._backends: list[Backend] = [
            backend(device, precision, threads=settings.threads, batch_max=settings.batch_max)
            for backend in usable_backends(settings.backend, device)
        ]
        self._chosen: tuple[NetworkConfig, Backend] | None = None
        log.info("inference on %s in %s", device, precision.value)

    def prepare(self, network: FrameNetwork) -> Runner:
        """Make a network ready; takes it over. The first of each layout is measured with every backend."""
        if self._chosen is None or self._chosen[0] != network.config:
            # a GPU takes about as long for a full batch, and some backends always compute one
            measured = self.batch_max if self.on_gpu else min(MEASURED_FRAMES, self.batch_max)
            frames = np.ones((measured, *network.config.frame_shape_px), dtype=np.float32)
            backend = fastest(self._backends, network, frames)
            log.info("inference with %s", backend.name.value)
            self._chosen = network.config, backend
        runner = self._chosen[1].prepare(network)
        full = [self.batch_max] * FULL_WARM_UPS if self.on_gpu else []
        for count in (*full, *WARM_UP_FRAMES):
            runner(np.ones((min(count, self.batch_max), *network.config.frame_shape_px), dtype=np.float32))
        return runner
