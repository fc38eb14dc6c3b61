"""What a whole edge costs for each frame beside its network: frames get the same patches at once."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from ptychoflow.acquisition.settings import PublishingSettings
from ptychoflow.inference_edge.backends.name import BackendName
from ptychoflow.inference_edge.settings import EdgeSettings
from ptychoflow.streaming.device import available_processors
from ptychoflow.streaming.private_folder import private_folder
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.trainer.models.ptychonn import original_model
from ptychoflow.workflow.benchmarks.beamline import FRAME_DTYPE, Beamline, random_weights
from ptychoflow.workflow.benchmarks.edge_process import EdgeProcess, ProcessorTimes
from ptychoflow.workflow.benchmarks.paired_rounds import spread
from ptychoflow.workflow.target import make_target

FRAMES = {64: 8192, 128: 4096}
"""In each round, by their size; sent as fast as the edge takes them."""
BATCH_FRAMES = (16, 64)
ROUNDS = 9
TARGET_PER_S = 20_000.0
"""By the processor time of the busiest thread, so for one whole core; with the larger batches."""
STITCHING_THREADS = 2
"""Where others than the thread that receives stitch; there must be as many processors."""


def bench_edge_alone() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return results and targets; takes about a minute."""
    results, targets = [], []
    for frame_px in FRAMES:
        for batch_frames in BATCH_FRAMES:
            case, frames_per_s = _measure(frame_px, batch_frames, stitching_threads=1)
            results.append(case)
        name = f"edge_alone_{frame_px}px_frames_per_thread_s"
        targets.append(make_target(name, frames_per_s, TARGET_PER_S, "min"))
        if available_processors() >= STITCHING_THREADS:
            case, frames_per_s = _measure(frame_px, BATCH_FRAMES[-1], stitching_threads=STITCHING_THREADS)
            results.append(case)
            targets.append(make_target(f"{name}_stitched_beside", frames_per_s, TARGET_PER_S, "min"))
    return results, targets


def _measure(frame_px: int, batch_frames: int, *, stitching_threads: int) -> tuple[dict[str, Any], float]:
    """Return the figures of a case, and the lower bound of the frames in a second of the busiest thread."""
    settings = EdgeSettings(backend=BackendName.EAGER, batch_max=batch_frames, stitching_threads_max=stitching_threads)
    message_frames = PublishingSettings(rate_hz=TARGET_PER_S).frames_per_message(FRAME_DTYPE.itemsize * frame_px**2)
    weights, frames = random_weights(original_model(), frame_px), FRAMES[frame_px]
    rounds: list[tuple[float, ProcessorTimes]] = []
    with (
        EdgeProcess(weights) as process,
        tempfile.TemporaryDirectory() as folder,
        private_folder() as sockets,
        Beamline(
            NetworkSettings(sockets_dir=sockets), Path(folder), frame_px=frame_px, message_frames=message_frames
        ) as line,
    ):
        process.serve(settings, NetworkSettings(sockets_dir=sockets), Path(folder), answers_at_once=True)
        line.publish(weights)
        line.wait_until_ready()
        for _ in range(1 + ROUNDS):
            before, began_s = process.times(), time.perf_counter()
            line.send(frames)
            line.wait_until_imaged()
            wall_s, after = time.perf_counter() - began_s, process.times()
            rounds.append((wall_s, ProcessorTimes(*(b - a for a, b in zip(before, after, strict=True)))))
        line.end_scan()
        process.wait()
    # the first round is one of filling caches and making room for an image
    measured = rounds[1:]
    per_thread_s = spread(frames / max(took.serving_thread_s, took.stitching_thread_s) for _, took in measured)
    case = {
        "edge_alone_frame_px": frame_px,
        "batch_frames": batch_frames,
        "stitching_threads": stitching_threads,
        "rounds": len(measured),
        "frames_per_s": spread(frames / wall_s for wall_s, _ in measured),
        "frames_per_thread_s": per_thread_s,
        "thread_us_per_frame": spread(1e6 * took.serving_thread_s / frames for _, took in measured),
        "stitching_thread_us_per_frame": spread(1e6 * took.stitching_thread_s / frames for _, took in measured),
        "process_us_per_frame": spread(1e6 * took.process_s / frames for _, took in measured),
    }
    return case, per_thread_s.lower
