"""Frames per second and latency of the whole edge, beside the bare model and beside phase retrieval, in one run."""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ptychoflow.acquisition.retrieval.engine import Measurement
from ptychoflow.acquisition.retrieval.engines import make_engine
from ptychoflow.acquisition.retrieval.settings import RetrievalSettings
from ptychoflow.acquisition.simulation.scan import SimulatedScan
from ptychoflow.acquisition.source_settings import SimulationSettings
from ptychoflow.inference_edge.backends.choice import usable_backends
from ptychoflow.inference_edge.backends.name import BackendName
from ptychoflow.inference_edge.device import choose_device
from ptychoflow.inference_edge.settings import EdgeSettings
from ptychoflow.inference_edge.stitching.mosaic import Mosaic, place_patches
from ptychoflow.streaming.device import Device
from ptychoflow.streaming.private_folder import private_folder
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.trainer.models.ptychonn import edge_model, original_model
from ptychoflow.workflow.benchmarks.beamline import STEP_PX, Beamline, random_weights
from ptychoflow.workflow.benchmarks.edge_process import EdgeProcess
from ptychoflow.workflow.benchmarks.results import BenchmarkFailed
from ptychoflow.workflow.target import make_target

MODELS = {"original": original_model(), "edge": edge_model()}
FRAMES_PX = (64, 128)
MESSAGE_FRAMES = 16
ROUNDS = 5
"""Of the whole edge and the bare model in turn; medians are reported, of ratios the median of the rounds'."""
FEED_SHARE = 1.15
"""Of the bare model's rate: frames come faster than they can be imaged, yet at a steady rate, as from a detector. Sent
all at once, they would take the edge's processor time while it images the first of them."""
BATCHES_MIN = 8
STEADY_FRAMES_MIN = 96
STEADY_SHARE = 0.6
"""Latency is measured at this share of the rate that the edge reached."""
PTYCHI_FRAMES = 100
STITCHED_PX = 64
STITCHED_PATCHES = 4096
STITCHED_AT_ONCE = 64
STITCHING_ROUNDS = 6

RATIO_TARGET = 0.9
LATENCY_ALLOWANCE_MS = 50.0
STITCHING_TARGET = 50_000


def bench_edge(
    *, batch_frames: int = 16, seconds: float = 3.0, frames_px: tuple[int, ...] = FRAMES_PX
) -> dict[str, Any]:
    """Return `results` and `targets` as the design names them; takes some minutes on a CPU.

    Args:
        batch_frames: frames imaged at once, by the bare model and at most by the edge.
        seconds: about how long each measurement of the whole edge lasts.
        frames_px: sizes of frames.
    """
    # a search of all libraries' objects for garbage would halt the feed for 0.1 s
    gc.freeze()
    try:
        return _bench_edge(batch_frames=batch_frames, seconds=seconds, frames_px=frames_px)
    finally:
        gc.unfreeze()


def _bench_edge(*, batch_frames: int, seconds: float, frames_px: tuple[int, ...]) -> dict[str, Any]:
    results, targets = [], []
    for frame_px in frames_px:
        ptychi_frame_ms = _ptychi_frame_ms(frame_px)
        for name in MODELS:
            cases = _measure_model(name, frame_px, batch_frames=batch_frames, seconds=seconds)
            results += [case | {"ptychi_frame_ms": ptychi_frame_ms} for case in cases]
            targets += _model_targets(max(cases, key=lambda case: float(case["frames_per_s"])))
    stitching = _bench_stitching()
    targets.append(make_target("edge_stitched_patches_per_s", stitching["patches_per_s"], STITCHING_TARGET, "min"))
    return {"results": [*results, stitching], "targets": targets}


def _measure_model(name: str, frame_px: int, *, batch_frames: int, seconds: float) -> list[dict[str, Any]]:
    device = choose_device(Device.AUTO)
    weights = random_weights(MODELS[name], frame_px)
    cases = []
    with EdgeProcess(weights) as process:
        for backend in usable_backends(BackendName.AUTO, device):
            settings = EdgeSettings(backend=backend.name, batch_max=batch_frames)
            figures = _measure_backend(process, settings, weights, frame_px=frame_px, seconds=seconds)
            cases.append(
                {
                    "model": name,
                    "frame_px": frame_px,
                    "backend": backend.name.value,
                    "device": str(device),
                    "threads": settings.threads,
                    "batch_frames": batch_frames,
                    **figures,
                }
            )
    return cases


def _measure_backend(
    process: EdgeProcess, settings: EdgeSettings, weights: bytes, *, frame_px: int, seconds: float
) -> dict[str, float]:
    with _scan(process, settings, weights, frame_px=frame_px) as line:
        bare = [process.bare_batch(settings)]
        frames = _whole_batches(seconds / ROUNDS / bare[0].wall_s, settings.batch_max)
        line.send(settings.batch_max)
        line.wait_until_imaged()
        took_s, cpu_s = [], []
        for _ in range(ROUNDS):
            began_s, cpu_began_s = time.perf_counter(), process.cpu_s()
            # two batches at once, so that it has something to do from the beginning
            line.send(2 * settings.batch_max)
            line.send(frames - 2 * settings.batch_max, frames_per_s=FEED_SHARE * settings.batch_max / bare[-1].wall_s)
            line.wait_until_imaged()
            took_s.append(time.perf_counter() - began_s)
            cpu_s.append(process.cpu_s() - cpu_began_s)
            bare.append(process.bare_batch(settings))
    batches = frames / settings.batch_max
    around_s = [(before.wall_s + after.wall_s) / 2 for before, after in pairwise(bare)]
    bare_s, bare_cpu_s = (statistics.median(times) for times in zip(*bare, strict=True))
    steady_per_s = STEADY_SHARE * frames / statistics.median(took_s)
    with _scan(process, settings, weights, frame_px=frame_px) as line:
        line.send(max(STEADY_FRAMES_MIN, int(seconds * steady_per_s)), frames_per_s=steady_per_s)
        line.wait_until_imaged()
    counts = line.counts()
    return {
        "frames_per_s": frames / statistics.median(took_s),
        "bare_frames_per_s": settings.batch_max / bare_s,
        "ratio_to_bare": statistics.median(
            batches * around / took for around, took in zip(around_s, took_s, strict=True)
        ),
        "cpu_ratio_to_bare": batches * bare_cpu_s / statistics.median(cpu_s),
        "cpu_ms_per_frame": 1000 * statistics.median(cpu_s) / frames,
        "bare_batch_ms": 1000 * bare_s,
        "steady_frames_per_s": steady_per_s,
        "frame_to_image_p50_ms": counts.frame_to_image_p50_ms,
        "frame_to_image_p99_ms": counts.frame_to_image_p99_ms,
    }


def _whole_batches(batches: float, batch_frames: int) -> int:
    return max(BATCHES_MIN, round(batches)) * batch_frames


@contextmanager
def _scan(process: EdgeProcess, settings: EdgeSettings, weights: bytes, *, frame_px: int) -> Iterator[Beamline]:
    """Have the process serve an edge that is ready to image; the scan ends, and the edge with it, on leaving."""
    with tempfile.TemporaryDirectory() as folder, private_folder() as sockets:
        network = NetworkSettings(sockets_dir=sockets)
        line = Beamline(network, Path(folder), frame_px=frame_px, message_frames=MESSAGE_FRAMES)
        with line:
            process.serve(settings, network, Path(folder))
            line.publish(weights)
            line.wait_until_ready()
            yield line
            line.end_scan()
            process.wait()


def _model_targets(fastest: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the targets of a model and frame size, for the backend that an edge chooses: the fastest."""
    case = f"{fastest['model']}_{fastest['frame_px']}px_{fastest['backend']}"
    allowed_ms = 2 * fastest["bare_batch_ms"] + LATENCY_ALLOWANCE_MS
    latency = fastest["frame_to_image_p99_ms"] / allowed_ms
    return [
        make_target(f"edge_ratio_to_bare_{case}", fastest["ratio_to_bare"], RATIO_TARGET, "min"),
        make_target(f"edge_p99_to_two_batches_and_50_ms_{case}", latency, 1.0, "max"),
    ]


def _ptychi_frame_ms(frame_px: int) -> float:
    """Return what phase retrieval takes per frame with the settings of a run, on one thread."""
    torch.set_num_threads(1)
    source = SimulationSettings(
        perspectives=1, frames_per_perspective=PTYCHI_FRAMES, frame_shape_px=(frame_px, frame_px)
    )
    perspective = SimulatedScan(source).perspective(0)
    if perspective.probe is None:
        raise BenchmarkFailed("the simulated scan has no probe")
    frames = perspective.read(0, PTYCHI_FRAMES)
    measurement = Measurement(frames, perspective.positions_px, perspective.probe, perspective.mask)
    engine = make_engine(RetrievalSettings())
    began_s = time.perf_counter()
    engine.reconstruct(measurement)
    return 1000 * (time.perf_counter() - began_s) / PTYCHI_FRAMES


def _bench_stitching() -> dict[str, Any]:
    """Stitch a scan of patches again and again, beside copying them; by processor time, so for a whole core."""
    random = np.random.default_rng(0)
    shape = (STITCHED_PATCHES, STITCHED_PX, STITCHED_PX)
    amplitude, phase = (random.uniform(0, 3, shape).astype(np.float32) for _ in range(2))
    rows, columns = np.divmod(np.arange(STITCHED_PATCHES), 64)
    positions_px = np.stack([rows, columns], axis=1) * STEP_PX
    copies = np.empty_like(amplitude), np.empty_like(phase)
    mosaic = Mosaic()
    took_s, copied_s = [], []
    for _ in range(STITCHING_ROUNDS):
        began_s = time.thread_time()
        for start in range(0, STITCHED_PATCHES, STITCHED_AT_ONCE):
            some = slice(start, start + STITCHED_AT_ONCE)
            mosaic.stitch(place_patches(amplitude[some], phase[some], positions_px[some]))
        took_s.append(time.thread_time() - began_s)
        began_s = time.thread_time()
        np.copyto(copies[0], amplitude)
        np.copyto(copies[1], phase)
        copied_s.append(time.thread_time() - began_s)
    return {
        "patch_px": STITCHED_PX,
        "patches_at_once": STITCHED_AT_ONCE,
        "patches_per_s": STITCHED_PATCHES / statistics.median(took_s[1:]),
        "copied_patches_per_s": STITCHED_PATCHES / statistics.median(copied_s[1:]),
    }
