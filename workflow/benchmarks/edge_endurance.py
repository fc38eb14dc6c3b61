"""A long scan at a steady rate: does the memory of the edge and of the dashboard grow, is a frame lost?"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from ptychoflow.dashboard.server import serve_dashboard
from ptychoflow.dashboard.settings import DashboardSettings
from ptychoflow.inference_edge.backends.name import BackendName
from ptychoflow.inference_edge.ptychography.service import serve_edge
from ptychoflow.inference_edge.settings import EdgeSettings
from ptychoflow.streaming.commands import CommandHub
from ptychoflow.streaming.messages import GroundTruthSource, Reference
from ptychoflow.streaming.private_folder import private_folder
from ptychoflow.streaming.settings import NetworkSettings, RunContext
from ptychoflow.trainer.models.ptychonn_settings import ModelSettings
from ptychoflow.workflow.benchmarks.beamline import SCAN_COLUMNS, STEP_PX, Beamline, random_weights
from ptychoflow.workflow.benchmarks.helper_process import HelperProcess
from ptychoflow.workflow.launching.ports import choose_port
from ptychoflow.workflow.target import make_target

FRAME_PX = 64
MESSAGE_FRAMES = 16
WARM_UP_SHARE = 0.4
"""Of the scan: until then, memory fills up to its bounds (kept perspectives, histories, allocators)."""
GROWTH_TARGET = 0.05
MIB = 1 << 20


def bench_endurance(*, frames: int = 20_000, perspectives: int = 40, frames_per_s: float = 200.0) -> dict[str, Any]:
    """Return `results` and `targets` as the design names them; takes `frames` / `frames_per_s` seconds.

    Every perspective gets a reference and new weights, so that imaging again, scores and images are part of it.

    Args:
        frames: frames of the whole scan.
        perspectives: equal parts of the scan.
        frames_per_s: the steady rate; a small network is used, so that a slow machine keeps up.
    """
    each = frames // perspectives
    memory: dict[str, list[float]] = {"edge": [], "dashboard": []}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        network = NetworkSettings(sockets_dir=stack.enter_context(private_folder()))
        stack.callback(CommandHub(network).close)
        line = stack.enter_context(Beamline(network, folder, frame_px=FRAME_PX, message_frames=MESSAGE_FRAMES))
        edge = stack.enter_context(_process(_serve_edge, network, folder))
        dashboard = stack.enter_context(_process(_serve_dashboard, network, folder))
        line.publish(_weights(1))
        line.wait_until_ready()
        for perspective in range(perspectives):
            line.send(each, frames_per_s=frames_per_s)
            line.end_perspective()
            line.send_reference(*_reference(perspective, each))
            line.publish(_weights(perspective + 2, final=perspective == perspectives - 1))
            line.wait_until_imaged()
            for name, process in (("edge", edge), ("dashboard", dashboard)):
                memory[name].append(psutil.Process(process.pid).memory_info().rss / MIB)
        line.end_scan()
        edge.join()
    counts = line.counts()
    lost = each * perspectives - counts.inferred
    result = {
        "frames": each * perspectives,
        "perspectives": perspectives,
        "frames_per_s": frames_per_s,
        "imaged": counts.inferred,
        "imaged_again": counts.refreshed,
        "lost": lost,
        "frame_to_image_p50_ms": counts.frame_to_image_p50_ms,
        "frame_to_image_p99_ms": counts.frame_to_image_p99_ms,
        **{f"{name}_memory_mib": [round(one, 1) for one in used] for name, used in memory.items()},
    }
    growth = {name: _growth(used) for name, used in memory.items()}
    targets = [make_target(f"{name}_memory_growth", value, GROWTH_TARGET, "max") for name, value in growth.items()]
    return {"results": [result], "targets": [*targets, make_target("edge_frames_lost", float(lost), 0.0, "max")]}


def _growth(used_mib: list[float]) -> float:
    """Return by which share memory grew after the warm-up: the mean of the last third against that of the first."""
    settled = used_mib[int(WARM_UP_SHARE * len(used_mib)) :]
    third = max(1, len(settled) // 3)
    return float(np.mean(settled[-third:]) / np.mean(settled[:third]) - 1)


def _weights(version: int, *, final: bool = False) -> bytes:
    return random_weights(ModelSettings(width=4), FRAME_PX, version=version, final=final)


def _reference(perspective: int, frames: int) -> tuple[Reference, dict[str, Any]]:
    height, width = (int(count * STEP_PX) + FRAME_PX for count in (frames / SCAN_COLUMNS, SCAN_COLUMNS))
    random = np.random.default_rng(perspective)
    arrays = {name: random.random((height, width), dtype=np.float32) for name in ("amplitude", "phase")}
    origin_px = (-FRAME_PX / 2, -FRAME_PX / 2)
    return Reference(perspective, 0.0, origin_px, GroundTruthSource.SIMULATED, 0.0), arrays


@contextmanager
def _process(serve: Callable[..., None], network: NetworkSettings, folder: Path) -> Iterator[HelperProcess]:
    process = HelperProcess(serve, network, folder)
    process.start()
    try:
        yield process
    finally:
        process.terminate()
        process.join()


def _serve_edge(network: NetworkSettings, folder: Path) -> None:
    settings = EdgeSettings(backend=BackendName.EAGER)
    serve_edge(settings, network=network, run=RunContext("endurance", folder, 0), stop=threading.Event())


def _serve_dashboard(network: NetworkSettings, folder: Path) -> None:
    serve_dashboard(
        DashboardSettings(port=choose_port(network, ranks=1)),
        network=network,
        run=RunContext("endurance", folder, 0),
        stop=threading.Event(),
        token="",
    )
