"""Frames per second and latency of the whole edge, beside the bare model and beside phase retrieval, in one run."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ptychoflow.acquisition.retrieval.engine import Measurement
from ptychoflow.acquisition.retrieval.engines import make_engine
from ptychoflow.acquisition.retrieval.settings import RetrievalSettings
from ptychoflow.acquisition.settings import PublishingSettings
from ptychoflow.acquisition.simulation.scan import SimulatedScan
from ptychoflow.acquisition.source_settings import SimulationSettings
from ptychoflow.inference_edge.backends.choice import usable_backends
from ptychoflow.inference_edge.backends.name import BackendName
from ptychoflow.inference_edge.device import choose_device
from ptychoflow.inference_edge.settings import EdgeSettings
from ptychoflow.streaming.device import Device
from ptychoflow.streaming.freed_memory import keep_freed_memory
from ptychoflow.streaming.private_folder import private_folder
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.trainer.models.ptychonn import edge_model, original_model
from ptychoflow.workflow.benchmarks.beamline import FRAME_DTYPE, Beamline, random_weights
from ptychoflow.workflow.benchmarks.edge_alone import bench_edge_alone
from ptychoflow.workflow.benchmarks.edge_process import EdgeProcess
from ptychoflow.workflow.benchmarks.edge_stitching import bench_stitching
from ptychoflow.workflow.benchmarks.paired_rounds import PairedRounds, Took, measure_pairs, processor_time_s
from ptychoflow.workflow.benchmarks.results import BenchmarkFailed
from ptychoflow.workflow.target import make_target

MODELS = {"original": original_model(), "edge": edge_model()}
FRAMES_PX = (64, 128)
ROUNDS = 15
"""Of the whole edge and the bare model in turn."""
SCORED_ROUNDS = 5
"""Likewise, while the edge scores frames without ground truth."""
FEED_SHARE = 1.5
"""Of the bare model's rate: frames come faster than they can be imaged, yet at a steady rate, as from a detector. Sent
all at once, they would take the edge's processor time while it images the first of them."""
BACKENDS_S = 0.5
"""For each backend, to find the fastest, which an edge chooses too."""
FIRST_BATCHES, BATCHES_MIN = 4, 8
STEADY_FRAMES_MIN = 96
STEADY_S = 3.0
STEADY_SHARE = 0.6
"""Latency is measured at this share of the rate that the edge reached."""
PTYCHI_FRAMES = 100

RATIO_TARGET = 0.9
LATENCY_ALLOWANCE_MS = 50.0


def bench_edge(
    *, batch_frames: int = 16, round_s: float = 0.8, frames_px: tuple[int, ...] = FRAMES_PX
) -> dict[str, Any]:
    """Return `results` and `targets` as the design names them; takes about five minutes on a CPU.

    Args:
        batch_frames: frames imaged at once, by the bare model and at most by the edge.
        round_s: about how long the whole edge is measured in each round, and the bare model half as long.
        frames_px: sizes of frames.
    """
    # a search of all libraries' objects for garbage would halt the feed for 0.1 s
    gc.freeze()
    try:
        return _bench_edge(batch_frames=batch_frames, round_s=round_s, frames_px=frames_px)
    finally:
        gc.unfreeze()


def _bench_edge(*, batch_frames: int, round_s: float, frames_px: tuple[int, ...]) -> dict[str, Any]:
    results, targets = [], []
    for frame_px in frames_px:
        ptychi_frame_ms = _ptychi_frame_ms(frame_px)
        for name in MODELS:
            case, met = _measure_model(name, frame_px, batch_frames=batch_frames, round_s=round_s)
            results.append(case | {"ptychi_frame_ms": ptychi_frame_ms})
            targets += met
    for bench in (bench_edge_alone, bench_stitching):
        more, met = bench()
        results, targets = [*results, *more], [*targets, *met]
    return {"results": results, "targets": targets}


def _measure_model(
    name: str, frame_px: int, *, batch_frames: int, round_s: float
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    device = choose_device(Device.AUTO)
    weights = random_weights(MODELS[name], frame_px)
    with EdgeProcess(weights) as process:
        backends_per_s = {}
        for backend in usable_backends(BackendName.AUTO, device):
            took = process.bare(EdgeSettings(backend=backend.name, batch_max=batch_frames), seconds=BACKENDS_S)
            # a core that other programs use too would give the choice to chance
            backends_per_s[backend.name] = took.items / (took.wall_s if device.type == "cuda" else took.cpu_s)
        fastest = max(backends_per_s, key=backends_per_s.__getitem__)
        settings = EdgeSettings(backend=fastest, batch_max=batch_frames)
        with _scan(process, settings, weights, frame_px=frame_px) as line:
            rounds = measure_rounds(process, line, settings, round_s=round_s, rounds=ROUNDS)
        with _scan(process, settings, weights, frame_px=frame_px) as scored_line:
            scored_line.send_probe()
            scored = measure_rounds(process, scored_line, settings, round_s=round_s, rounds=SCORED_ROUNDS)
        figures = rounds.figures("frames")
        batch_ms = 1000 * batch_frames / figures["bare_frames_per_s"]
        steady_per_s = STEADY_SHARE * figures["ours_frames_per_s"]
        with _scan(process, settings, weights, frame_px=frame_px, rate_hz=steady_per_s) as line:
            line.send(max(STEADY_FRAMES_MIN, int(STEADY_S * steady_per_s)), frames_per_s=steady_per_s)
            line.wait_until_imaged()
    counts = line.counts()
    case = {
        "model": name,
        "frame_px": frame_px,
        "backend": fastest.value,
        "device": str(device),
        "threads": settings.threads,
        "batch_frames": batch_frames,
        **figures,
        "beside_bare_cpu_us_per_frame": 1e6
        * (1 / figures["ours_frames_per_cpu_s"] - 1 / figures["bare_frames_per_cpu_s"]),
        "scored_ratio": scored.by_clock,
        "scored_cpu_ratio": scored.by_processor,
        "scored_fraction": scored_line.scored_fraction(),
        "bare_batch_ms": batch_ms,
        "bare_backends_frames_per_s": {backend.value: rate for backend, rate in backends_per_s.items()},
        "steady_frames_per_s": steady_per_s,
        "frame_to_image_p50_ms": counts.frame_to_image_p50_ms,
        "frame_to_image_p99_ms": counts.frame_to_image_p99_ms,
    }
    name = f"{name}_{frame_px}px"
    latency = counts.frame_to_image_p99_ms / (2 * batch_ms + LATENCY_ALLOWANCE_MS)
    return case, [
        *rounds.targets(f"edge_{name}", RATIO_TARGET),
        make_target(f"edge_p99_to_two_batches_and_50_ms_{name}", latency, 1.0, "max"),
    ]


def measure_rounds(
    process: EdgeProcess, line: Beamline, settings: EdgeSettings, *, round_s: float, rounds: int
) -> PairedRounds:
    """Return what rounds of the whole edge, which waits for frames, and of the bare model gave."""
    newest = process.bare(settings, seconds=round_s / 2)
    frames = _whole_batches(round_s * newest.items / newest.wall_s / settings.batch_max, settings.batch_max)

    def bare() -> Took:
        nonlocal newest
        newest = process.bare(settings, seconds=round_s / 2)
        return newest

    def ours() -> Took:
        began_s, cpu_began_s = time.perf_counter(), processor_time_s([process.pid])
        # some batches at once, so that it has something to do until the first message of others comes
        line.send(FIRST_BATCHES * settings.batch_max)
        line.send(frames - FIRST_BATCHES * settings.batch_max, frames_per_s=FEED_SHARE * newest.items / newest.wall_s)
        line.wait_until_imaged()
        return Took(frames, time.perf_counter() - began_s, processor_time_s([process.pid]) - cpu_began_s)

    return measure_pairs(ours, bare, rounds=rounds)


def _whole_batches(batches: float, batch_frames: int) -> int:
    return max(BATCHES_MIN, round(batches)) * batch_frames


@contextmanager
def _scan(
    process: EdgeProcess, settings: EdgeSettings, weights: bytes, *, frame_px: int, rate_hz: float | None = None
) -> Iterator[Beamline]:
    """Have the process serve an edge that is ready to image; the scan ends, and the edge with it, on leaving.

    Frames go together as an acquisition sends them, at `rate_hz` if it has one.
    """
    message_frames = PublishingSettings(rate_hz=rate_hz).frames_per_message(FRAME_DTYPE.itemsize * frame_px**2)
    with tempfile.TemporaryDirectory() as folder, private_folder() as sockets:
        network = NetworkSettings(sockets_dir=sockets)
        line = Beamline(network, Path(folder), frame_px=frame_px, message_frames=message_frames)
        with line:
            process.serve(settings, network, Path(folder))
            line.publish(weights)
            line.wait_until_ready()
            yield line
            line.end_scan()
            process.wait()


def _ptychi_frame_ms(frame_px: int) -> float:
    """Return what phase retrieval takes per frame with the settings of a run, on one thread."""
    torch.set_num_threads(1)
    keep_freed_memory()
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
