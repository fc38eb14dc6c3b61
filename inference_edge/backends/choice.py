"""Choosing the backend: by name, or by a short measurement."""

from __future__ import annotations

import copy
import logging
import math
import statistics
import time
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from ptychoflow.inference_edge.backends.base import Backend
from ptychoflow.inference_edge.backends.cuda_graph import CudaGraphBackend
from ptychoflow.inference_edge.backends.eager import EagerBackend
from ptychoflow.inference_edge.backends.name import BackendName
from ptychoflow.inference_edge.backends.openvino import OpenVinoBackend
from ptychoflow.inference_edge.backends.runner import Runner
from ptychoflow.inference_edge.backends.torchscript import TorchScriptBackend
from ptychoflow.streaming.errors import UserError
from ptychoflow.trainer.models.frame_network import FrameNetwork

log = logging.getLogger(__name__)

BACKENDS: tuple[type[Backend], ...] = (EagerBackend, TorchScriptBackend, OpenVinoBackend, CudaGraphBackend)
WARM_UP_RUNS = 2
MEASURED_RUNS_MIN = 3
MEASURED_S = 0.3
WORTHWHILE = 0.95
"""Another backend than eager must take less than this share of its time."""


def usable_backends(choice: BackendName, device: torch.device) -> list[type[Backend]]:
    """Return the backend asked for, or all that run on `device`, eager first.

    Raises:
        UserError: the one asked for does not run here.
    """
    if choice is BackendName.AUTO:
        return [one for one in BACKENDS if one.obstacle(device) is None]
    (asked,) = (one for one in BACKENDS if one.name is choice)
    if (obstacle := asked.obstacle(device)) is not None:
        raise UserError(f'edge.backend = "{choice}" cannot be used: {obstacle}; or set edge.backend = "auto"')
    return [asked]


def fastest(backends: list[Backend], network: FrameNetwork, frames: npt.NDArray[np.float32]) -> Backend:
    """Return the backend that runs `network` on counts `frames` (n, y, x) fastest; the first unless another is faster.

    Blocks for about a second per backend. One that fails here is left out, unless it is the first.
    """
    if len(backends) == 1:
        return backends[0]
    runners = _running(backends, network, frames)
    took_s = time_runners(runners, frames)
    log.info(
        "measured with %d frames: %s",
        len(frames),
        ", ".join(f"{name} {len(frames) / seconds:,.0f} frames/s" for name, seconds in took_s.items()),
    )
    usual, best = backends[0], min(backends, key=lambda backend: took_s.get(backend.name, math.inf))
    return best if took_s[best.name] < WORTHWHILE * took_s[usual.name] else usual


def _running(
    backends: list[Backend], network: FrameNetwork, frames: npt.NDArray[np.float32]
) -> dict[BackendName, Runner]:
    """Return what runs the network on `frames`, warmed up, with the first backend and with each other that can."""
    runners: dict[BackendName, Runner] = {}
    for backend in backends:
        try:
            runner = backend.prepare(copy.deepcopy(network))
            for _ in range(WARM_UP_RUNS):
                runner(frames)
        except RuntimeError as error:
            if not runners:
                raise
            log.warning("%s is left out, it fails on this network: %s", backend.name, str(error).partition("\n")[0])
        else:
            runners[backend.name] = runner
    return runners


def time_runners(runners: Mapping[BackendName, Runner], frames: npt.NDArray[np.float32]) -> dict[BackendName, float]:
    """Return the median seconds that each takes for `frames`, measured in turn."""
    took_s: dict[BackendName, list[float]] = {name: [] for name in runners}
    began_s = time.perf_counter()
    rounds = 0
    while rounds < MEASURED_RUNS_MIN or time.perf_counter() - began_s < MEASURED_S * len(runners):
        for name, run in runners.items():
            run_began_s = time.perf_counter()
            run(frames)
            took_s[name].append(time.perf_counter() - run_began_s)
        rounds += 1
    return {name: statistics.median(seconds) for name, seconds in took_s.items()}
