"""Backends of the edge beside the plain network on the CPU, and new weights while another thread images."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ptychoflow.inference_edge.backends.base import Backend
from ptychoflow.inference_edge.backends.choice import usable_backends
from ptychoflow.inference_edge.backends.eager import EagerBackend
from ptychoflow.inference_edge.backends.name import BackendName
from ptychoflow.inference_edge.backends.runner import Runner
from ptychoflow.trainer.models.arithmetic import resolve
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.precision import Precision
from ptychoflow.workflow.benchmarks.gpu.networks import network_of
from ptychoflow.workflow.benchmarks.gpu.section import ERRORS, Figures, Setup, Unmet

Frames: TypeAlias = npt.NDArray[np.float32]
"""(n, y, x) counts."""
Phases: TypeAlias = npt.NDArray[np.float32]
"""(n, y, x) in radians."""

BATCH = 64
COUNTS = (1, 16, 64, 16)
AHEAD = 8
"""Batches that are begun with one after the other."""
OFF_RAD = 0.2
"""How far the phases of a frame may be off in bfloat16, on average; those of another frame are 0.4 rad off and more."""
ALIKE_RAD = 0.05
"""Likewise, where a backend is compared with itself."""
STALL_S = 0.25
WARM_UP_RUNS = 3
"""Until a backend has compiled what it does."""


def backends(setup: Setup) -> Figures:
    """Run every backend that can be used here, with full and with small batches."""
    frames = _frames(setup)
    network = _network(setup, frames, seed=0)
    with torch.no_grad():
        expected = network(torch.from_numpy(frames)).phase.numpy()
    case = network, frames, expected
    return _with_each_backend(setup, lambda backend, figures: _try(backend, setup, case, figures))


def _with_each_backend(setup: Setup, work: Callable[[Backend, Figures], list[str]]) -> Figures:
    """Return the figures of every backend that can be used here; one that fails hides no other.

    Args:
        setup: where it runs.
        work: adds the figures of a backend, and returns what is wrong with it.

    Raises:
        Unmet: something is wrong with one.
    """
    figures, faults = Figures(), list[str]()
    for backend in _backends(setup):
        try:
            faults += work(backend, figures)
        except ERRORS as error:
            faults.append(f"{backend.name.value}: {type(error).__name__}: {error}")
    if faults:
        raise Unmet("; ".join(faults), figures)
    return figures


def _try(backend: Backend, setup: Setup, case: tuple[FrameNetwork, Frames, Phases], figures: Figures) -> list[str]:
    """Add the figures of a backend; return what is wrong with its phases."""
    network, frames, expected = case
    run, name = backend.prepare(copy.deepcopy(network)), backend.name.value
    off_rad = max(_off_rad(run(frames[:count]).phase, expected[:count]) for count in COUNTS)
    unlike_rad = _under_way_together(run, frames, run(frames).phase)
    figures |= {f"{name}_off_rad": off_rad, f"{name}_under_way_together_off_rad": unlike_rad}
    for count in (16, BATCH):
        took_ms = setup.milliseconds(lambda: run(frames[:count]))  # noqa: B023  # called at once
        figures[f"{name}_frames_per_s_{count}"] = 1000 * count / took_ms
    took_ms = setup.milliseconds(lambda: _one_ahead(run, frames))
    figures[f"{name}_overlapped_frames_per_s_{BATCH}"] = 1000 * AHEAD * BATCH / took_ms
    faults = []
    if not off_rad < OFF_RAD:
        faults.append(f"{name}: phases are {off_rad:.3f} rad off")
    if not unlike_rad < ALIKE_RAD:
        faults.append(f"{name}: phases of batches under way together are {unlike_rad:.3f} rad off")
    return faults


def _off_rad(phase: Phases, expected: Phases) -> float:
    """Return how far the phases of a frame are off on average, of the worst of all frames."""
    off_rad = np.abs(np.angle(np.exp(1j * (phase.astype(np.float64) - expected))))
    return float(off_rad.mean(axis=(1, 2)).max())


def _under_way_together(run: Runner, frames: Frames, expected: Phases) -> float:
    """Return how far phases are off of batches that are all begun with before one is taken, in other orders each."""
    orders = [np.random.default_rng(number).permutation(len(frames)) for number in range(AHEAD)]
    results = [run.begin(frames[order]) for order in orders]
    return max(_off_rad(result().phase, expected[order]) for result, order in zip(results, orders, strict=True))


def _one_ahead(run: Runner, frames: Frames) -> None:
    """Run some batches as an edge does that is full: the next is begun with before the one before is taken."""
    before = run.begin(frames)
    for _ in range(AHEAD - 1):
        following = run.begin(frames)
        before()
        before = following
    before()


def new_weights(setup: Setup) -> Figures:
    """Make new weights ready while another thread images with the old ones: the same images, and no long stall."""
    frames = _frames(setup)
    networks = [_network(setup, frames, seed=seed) for seed in range(3 if setup.short else 11)]
    return _with_each_backend(setup, lambda backend, figures: _renew(backend, setup, networks, frames, figures))


def _renew(
    backend: Backend, setup: Setup, networks: Sequence[FrameNetwork], frames: Frames, figures: Figures
) -> list[str]:
    """Image with the first network while the others are made ready; add figures, and return what is wrong."""
    run = backend.prepare(copy.deepcopy(networks[0]))
    for _ in range(WARM_UP_RUNS):
        run(frames)
    expected, took_s, off_rad, stop = run(frames).phase, [], [0.0], threading.Event()

    def image() -> None:
        ends = False
        while not ends:
            ends = stop.is_set()  # the last batch is begun when all others are ready
            began_s = time.perf_counter()
            phase = run(frames).phase
            took_s.append(time.perf_counter() - began_s)
            off_rad.append(_off_rad(phase, expected))

    imaging = threading.Thread(target=image)
    imaging.start()
    ready_s = []
    try:
        for network in networks[1:]:
            began_s = time.perf_counter()
            backend.prepare(copy.deepcopy(network))(frames)
            ready_s.append(time.perf_counter() - began_s)
    finally:
        stop.set()
        imaging.join()
    name = backend.name.value
    figures |= {
        f"{name}_ready_ms": 1000 * float(np.median(ready_s)),
        f"{name}_batch_ms": 1000 * float(np.median(took_s)),
        f"{name}_worst_batch_ms": 1000 * max(took_s),
        f"{name}_off_rad": max(off_rad),
    }
    faults = []
    if not max(off_rad) < ALIKE_RAD:
        faults.append(f"{name}: batches came out wrong, by up to {max(off_rad):.3f} rad")
    if setup.device.type == "cuda" and max(took_s) > STALL_S:
        faults.append(f"{name}: imaging stood still for {max(took_s):.2f} s")
    return faults


def _backends(setup: Setup) -> list[Backend]:
    kinds = [EagerBackend] if setup.short else usable_backends(BackendName.AUTO, setup.device)
    precision = Precision.FLOAT32 if setup.short else resolve(Precision.AUTO, setup.device)
    return [kind(setup.device, precision, threads=1, batch_max=BATCH) for kind in kinds]


def _network(setup: Setup, frames: Frames, *, seed: int) -> FrameNetwork:
    """Return a network whose phases differ from frame to frame: untrained, with batch norm that fits the frames."""
    network = network_of(setup, px=_frame_px(setup), seed=seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # what it has seen, not a moving mean
    with torch.no_grad():
        network.train()(torch.from_numpy(frames))
    return network.eval()


def _frames(setup: Setup) -> Frames:
    """Return frames of different brightness."""
    random, side = np.random.default_rng(0), _frame_px(setup)
    brightness = random.uniform(0.2, 1.8, (BATCH, 1, 1))
    return random.poisson(20.0 * brightness, (BATCH, side, side)).astype(np.float32)


def _frame_px(setup: Setup) -> int:
    return 16 if setup.short else 128
