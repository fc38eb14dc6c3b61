"""A live run whose acquisition is killed in mid-series while the detector goes on, resumed from its arrivals."""

from __future__ import annotations

import json
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from beamline import JOINED
from support import free_ports, listens, wait_until
from test_resume import ended, processes, started

from ptychoflow.acquisition.simulate import simulate_to_file
from ptychoflow.acquisition.source_settings import ReplaySettings, SimulationSettings
from ptychoflow.acquisition.sources import open_scan
from ptychoflow.streaming.run_folder import RunFolder

SERIES, FRAMES = 2, 256
SCAN = SimulationSettings(perspectives=SERIES, frames_per_perspective=FRAMES, frame_shape_px=(32, 32), seed=3)
SETTINGS: dict[str, Any] = {
    **JOINED,
    "source.geometry.detector_distance_m": SCAN.detector_distance_m,
    "source.perspectives": SERIES,
    "source.first_frames": 16,
    # shorter than the acquisition is away: a time in which nobody listened is no silence of the detector
    "source.idle_s": 4.0,
    "acquisition.record": True,
    "retrieval.source": "ptychi",
    "retrieval.epochs": 2,
    # how many frames come is up to the host, and a few frames of two epochs look void
    "retrieval.void_threshold": 0.0,
    "retrieval.target_shape_px": [16, 16],
    "trainer.batch_size": 8,
    "trainer.pace": "stream",
    "trainer.finish_s": 0.5,
    "trainer.model.width": 4,
    "trainer.buffer.capacity": 100,
    "edge.backend": "eager",
    "dashboard.enabled": False,
}


def run_arguments(folder: Path, detector: str, positions: str) -> list[str]:
    values = {**SETTINGS, "run.directory": str(folder.parent)}
    return [
        "run", "--name", folder.name, "--detector", detector, "--positions", positions,
        *(f"--set={key}={json.dumps(value)}" for key, value in values.items()),
    ]  # fmt: skip


def simulator(stack: ExitStack, source: str, scan: Path) -> subprocess.Popen[str]:
    """Send a scan, and lose what nobody hears."""
    options = ["--rate", "12", "--pause", "3", "--set", "simulator.loses_unheard=true"]
    return stack.enter_context(started("detector", source, str(scan), *options))


def acquired(folder: Path) -> int:
    """The frames that the run says to have acquired."""
    lines = (folder / "telemetry.jsonl").read_text().splitlines() if (folder / "telemetry.jsonl").exists() else []
    counts = [line for line in lines if '"acquired":' in line]
    return json.loads(counts[-1])["event"]["acquired"] if counts else 0


def test_an_acquisition_killed_in_mid_series_is_resumed_from_its_arrivals(tmp_path: Path) -> None:
    scan, folder = tmp_path / "scan.h5", tmp_path / "run"
    simulate_to_file(SCAN, scan)
    ports = free_ports(2)
    addresses = [f"{kind}://127.0.0.1:{port}" for kind, port in zip(("dectris-v2", "panda"), ports, strict=True)]
    with ExitStack() as stack:
        simulators = [simulator(stack, address, scan) for address in addresses]
        for one, port in zip(simulators, ports, strict=True):  # they begin together, when the run connects
            speaks = psutil.Process(one.pid)
            wait_until(lambda speaks=speaks, port=port: listens(speaks, port), timeout_s=60.0)
        process = stack.enter_context(started(*run_arguments(folder, *addresses)))
        wait_until(lambda: acquired(folder) > 40, timeout_s=120)
        (acquisition,) = processes(process, "ptychoflow", "acquire")
        receivers = acquisition.children(recursive=True)
        acquisition.kill()
        assert process.wait(60) == 1, "a run does not go on without its acquisition"
        assert not psutil.wait_procs(receivers, timeout=20)[1], "a receiver does not outlive its acquisition"
        before = acquired(folder)
        assert before < FRAMES
        summary = ended(stack.enter_context(started("resume", str(folder))), folder)
        assert [one.wait(60) for one in simulators] == [0, 0]
    holes = require_exact(RunFolder(folder).recording, scan, frames=summary["frames"]["inferred"])
    require_balance(summary, holes=holes)


def require_balance(summary: dict[str, Any], *, holes: int) -> None:
    """Every frame that was acquired has one end, and every hole is missing or has no position.

    A series whose rest came while nobody listened ends where it was left: nobody knows what else was sent.
    """
    frames = summary["frames"]
    assert summary["ended_well"], summary["warnings"]
    unplaced, missing = (sum(summary[key].values()) for key in ("unplaced_because", "missing_because"))
    assert (frames["lost"], frames["rejected"]) == (0, 0)
    assert frames["acquired"] == frames["inferred"] + unplaced
    assert missing + unplaced >= holes
    assert frames["inferred"] < SERIES * FRAMES, "something was sent while nobody listened"
    assert FRAMES < frames["acquired"] + missing <= SERIES * FRAMES


def require_exact(recording: Path, sent: Path, *, frames: int) -> int:
    """Every recorded frame is one that was sent in that series, once, and lies where it was sent.

    Returns:
        Frames that are not recorded although later ones of their series are.
    """
    recorded, scan = (open_scan(ReplaySettings(path=path)) for path in (recording, sent))
    found = holes = 0
    for kept, perspective in zip(recorded, scan, strict=True):
        numbers = {frame.tobytes(): number for number, frame in enumerate(perspective.read(0, FRAMES))}
        came = [numbers.pop(frame.tobytes()) for frame in kept.read(0, len(kept)).astype(perspective.read(0, 1).dtype)]
        np.testing.assert_allclose(kept.positions_px, perspective.positions_px[came], atol=1e-6)
        found += len(came)
        holes += max(came) + 1 - len(came)
    assert found == frames
    return holes
