"""Backends of the edge beside the plain network on the CPU, and new weights while another thread images."""

from __future__ import annotations

import copy
import threading
import time
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from ptychoflow.inference_edge.backends.base import Backend
from ptychoflow.inference_edge.backends.choice import usable_backends
from ptychoflow.inference_edge.backends.eager import EagerBackend
from ptychoflow.inference_edge.backends.name import BackendName
from ptychoflow.inference_edge.backends.runner import Runner
from ptychoflow.trainer.models.arithmetic import resolve
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.precision import Precision
from ptychoflow.workflow.benchmarks.gpu.networks import network_of
from ptychoflow.workflow.benchmarks.gpu.section import Figures, Setup, Unmet

Frames: TypeAlias = npt.NDArray[np.float32]
"""(n, y, x) counts."""
Phases: TypeAlias = npt.NDArray[np.float32]
"""(n, y, x) in radians."""

BATCH = 64
COUNTS = (1, 16, 64, 16)
AHEAD = 8
"""Batches that are begun with one after the other."""
OFF_RAD = 0.1
"""How far a phase may be off in bfloat16."""
STALL_S = 0.25
WARM_UP_RUNS = 3
"""Until a backend has compiled what it does."""


def backends(setup: Setup) -> Figures:
    """Run every backend that can be used here, with full and with small batches."""
    network, frames = _network(setup), _frames(setup)
    with torch.no_grad():
        expected = network(torch.from_numpy(frames)).phase.numpy()
    figures: Figures = {}
    for backend in _backends(setup):
        run = backend.prepare(copy.deepcopy(network))
        off = max(float(np.abs(run(frames[:count]).phase - expected[:count]).max()) for count in COUNTS)
        off = max(off, _under_way_together(run, frames, expected))
        name = backend.name.value
        figures[f"{name}_off_rad"] = off
        for count in (16, BATCH):
            took_ms = setup.milliseconds(lambda: run(frames[:count]))  # noqa: B023  # called at once
            figures[f"{name}_frames_per_s_{count}"] = 1000 * count / took_ms
        took_ms = setup.milliseconds(lambda: _one_ahead(run, frames))  # noqa: B023  # called at once
        figures[f"{name}_overlapped_frames_per_s_{BATCH}"] = 1000 * AHEAD * BATCH / took_ms
        if not off < OFF_RAD:
            raise Unmet(f"{name}: phases are {off:.3f} rad off", figures)
    return figures


def _under_way_together(run: Runner, frames: Frames, expected: Phases) -> float:
    """Return how far phases are off of batches that are all begun with before one is taken, in other orders each."""
    orders = [np.random.default_rng(number).permutation(len(frames)) for number in range(AHEAD)]
    results = [run.begin(frames[order]) for order in orders]
    return max(
        float(np.abs(result().phase - expected[order]).max()) for result, order in zip(results, orders, strict=True)
    )


def _one_ahead(run: Runner, frames: Frames) -> None:
    """Run some batches as an edge does that is full: the next is begun with before the one before is taken."""
    before = run.begin(frames)
    for _ in range(AHEAD - 1):
        following = run.begin(frames)
        before()
        before = following
    before()


def new_weights(setup: Setup) -> Figures:
    """Make new weights ready while another thread images: the same images, and no long stall."""
    figures: Figures = {}
    frames = _frames(setup)
    for backend in _backends(setup):
        run = backend.prepare(_network(setup))
        for _ in range(WARM_UP_RUNS):
            run(frames)
        expected, took_s, wrong, stop = run(frames).phase, [], [], threading.Event()

        def image() -> None:
            while not stop.is_set():  # noqa: B023  # joined before the next one
                began_s = time.perf_counter()
                phase = run(frames).phase  # noqa: B023
                took_s.append(time.perf_counter() - began_s)  # noqa: B023
                if not np.allclose(phase, expected, atol=1e-3):  # noqa: B023
                    wrong.append(float(np.abs(phase - expected).max()))  # noqa: B023

        imaging = threading.Thread(target=image)
        imaging.start()
        ready_s = []
        for _ in range(2 if setup.short else 10):
            began_s = time.perf_counter()
            backend.prepare(_network(setup))(frames)
            ready_s.append(time.perf_counter() - began_s)
        stop.set()
        imaging.join()
        name = backend.name.value
        figures[f"{name}_ready_ms"] = 1000 * float(np.median(ready_s))
        figures[f"{name}_batch_ms"] = 1000 * float(np.median(took_s))
        figures[f"{name}_worst_batch_ms"] = 1000 * max(took_s)
        if wrong:
            raise Unmet(f"{name}: {len(wrong)} batches came out wrong, by up to {max(wrong):.3f} rad", figures)
        if setup.device.type == "cuda" and max(took_s) > STALL_S:
            raise Unmet(f"{name}: imaging stood still for {max(took_s):.2f} s", figures)
    return figures


def _backends(setup: Setup) -> list[Backend]:
    kinds = [EagerBackend] if setup.short else usable_backends(BackendName.AUTO, setup.device)
    precision = Precision.FLOAT32 if setup.short else resolve(Precision.AUTO, setup.device)
    return [kind(setup.device, precision, threads=1, batch_max=BATCH) for kind in kinds]


def _network(setup: Setup) -> FrameNetwork:
    return network_of(setup, px=_frame_px(setup)).eval()


def _frames(setup: Setup) -> Frames:
    shape = (BATCH, _frame_px(setup), _frame_px(setup))
    return np.random.default_rng(0).poisson(20.0, shape).astype(np.float32)


def _frame_px(setup: Setup) -> int:
    return 16 if setup.short else 128
