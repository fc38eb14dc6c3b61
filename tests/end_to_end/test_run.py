"""`ptychoflow run` as a user starts it: all parts as real processes, to the end, with everything accounted for."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil
import pytest
from listening import addresses_listened_at, beyond_loopback
from recorded_calls import RecordedCalls, recorded_in
from support import wait_until

from ptychoflow.streaming.run_folder import RunFolder

SMALL = {
    "source.kind": "simulation",
    "source.perspectives": 3,
    "source.frames_per_perspective": 100,
    "source.frame_shape_px": [32, 32],
    "source.seed": 5,
    "acquisition.roles.hold_out": "last_perspective",
    "retrieval.epochs": 5,
    "retrieval.target_shape_px": [16, 16],
    "trainer.batch_size": 8,
    "trainer.finish_s": 1.0,
    "trainer.publish_every_s": 1.0,
    "trainer.model.width": 4,
    "trainer.buffer.capacity": 200,
    "trainer.buffer.representatives": 8,
    "trainer.buffer.candidates": 8,
    "dashboard.port": 0,
}
QUICK = {
    "trainer.pace": "stream",
    "trainer.finish_s": 0.0,
    "edge.backend": "eager",
    "dashboard.enabled": False,
}
"""For runs of which what is learnt, how quickly, and the page do not matter."""
SCORED = ("psnr_db", "ssim", "correlation")


def command(directory: Path, name: str, *arguments: str, **settings: Any) -> list[str]:
    values = {
        **SMALL,
        **{key.replace("__", "."): value for key, value in settings.items()},
        "run.directory": str(directory),
    }
    assignments = [f"--set={key}={json.dumps(value)}" for key, value in values.items() if value is not None]
    return [sys.executable, "-m", "ptychoflow", "run", *arguments, "--name", name, *assignments]


def run(
    directory: Path, name: str, *arguments: str, environment: dict[str, str] | None = None, **settings: Any
) -> dict[str, Any]:
    """Run to the end; return the summary."""
    done = subprocess.run(
        command(directory, name, *arguments, **settings),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((directory / name / "summary.json").read_text())


def reference(directory: Path, perspective: int) -> dict[str, np.ndarray]:
    with h5py.File(directory / "images" / f"perspective_{perspective:04d}.h5") as file:
        return {channel: file["reference"][channel][()] for channel in ("amplitude", "phase")}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def recorded(runs: Path) -> dict[str, Any]:
    """A simulated scan learned by two ranks and recorded."""
    return run(runs, "recorded", "--ranks=2", "--record", environment=recorded_in(runs / "calls.jsonl"))


@pytest.fixture(scope="module")
def calls(recorded: dict[str, Any], runs: Path) -> RecordedCalls:
    """What its processes did with the disk, and what they said."""
    return RecordedCalls(runs / "calls.jsonl")


def test_every_frame_ends_in_exactly_one_place(recorded: dict[str, Any]) -> None:
    frames = recorded["frames"]
    assert frames["acquired"] == frames["published"] == frames["inferred"] == 300
    assert frames["held_out"] == 100
    assert frames["trained"] + frames["validation"] + frames["void"] == 200
    assert frames["trained"] > 100
    assert frames["validation"] > 5
    assert frames["lost"] == frames["rejected"] == frames["unlabelled"] == frames["excluded"] == 0
    assert frames["refreshed"] > 0


def test_weights_reach_the_edge_and_images_are_scored(recorded: dict[str, Any]) -> None:
    assert recorded["weights"]["applied"] > 0
    assert recorded["weights"]["rejected"] == 0
    assert [perspective["index"] for perspective in recorded["perspectives"]] == [0, 1, 2]
    for perspective in recorded["perspectives"]:
        for kind in ("first_pass", "refreshed", "constant"):
            assert all(
                np.isfinite(perspective[kind][score][channel]) for score in SCORED for channel in ("amplitude", "phase")
            )
    assert recorded["held_out"]["frames"] == 100
    after = [loss["after_perspective"] for loss in recorded["validation_loss"]]
    assert after == sorted(after)
    assert {0, 1} <= set(after)


def test_the_run_folder_is_complete(recorded: dict[str, Any], runs: Path) -> None:
    folder = runs / "recorded"
    for name in ("config.toml", "environment.json", "telemetry.jsonl", "summary.json", "report.html", "recording.h5"):
        assert (folder / name).stat().st_size > 0
    assert len(list((folder / "weights").glob("v*.safetensors"))) == recorded["weights"]["published"]
    assert len(list((folder / "images").glob("*.h5"))) == 3


def test_every_file_of_a_run_is_on_the_disk_under_its_name(calls: RecordedCalls, runs: Path) -> None:
    folder = runs / "recorded"
    growing = {folder / ".lock", folder / "telemetry.jsonl", *(folder / "logs").iterdir()}
    files = {path for path in folder.rglob("*") if path.is_file()} - growing
    assert len(files) > 20
    assert sorted(path for path in files if calls.durable_at(path) is None) == []


def test_what_is_announced_or_acknowledged_is_on_the_disk(calls: RecordedCalls, runs: Path) -> None:
    folder = RunFolder(runs / "recorded")

    def since_ns(path: Path | str) -> int:
        durable_ns = calls.durable_at(path)
        assert durable_ns is not None, path
        return durable_ns

    for kind in ("WeightsPublished", "Weights"):
        said = list(calls.said(kind))
        assert said
        assert all(since_ns(folder.weights_file(one.facts["version"])) < one.ns for one in said)
    results = {int(Path(path).name): path for path in calls.renamed_to("/spool/outcomes/0") if path[-4:].isdecimal()}
    for kind in ("GroundTruthReady", "Samples"):
        said = list(calls.said(kind))
        assert said
        assert all(since_ns(f"{results[one.facts['perspective']]}/outcome.json") < one.ns for one in said)
    acknowledged = [one for one in calls.said("Acknowledge") if one.facts["sequences"] and not one.facts["hold"]]
    by_ranks = [one.ns for one in acknowledged if one.facts["consumer"].startswith("rank-")]
    by_edge = [one.ns for one in acknowledged if one.facts["consumer"] == "edge"]
    complete = [since_ns(path) for path in calls.renamed_to("/checkpoints/step-") if path.endswith("/complete.json")]
    images = [since_ns(path) for path in folder.image_files().values()]
    assert len(complete) > 1
    assert min(complete) < min(by_ranks)
    assert max(complete) < max(by_ranks)
    assert len(images) == 3
    assert min(images) < min(by_edge)
    assert max(images) < max(by_edge)


def test_a_replay_of_the_recording_gives_the_same_reconstruction(recorded: dict[str, Any], runs: Path) -> None:
    path = str(runs / "recorded" / "recording.h5")
    simulation = {key.replace(".", "__"): None for key in SMALL if key.startswith("source.")}
    replayed = run(runs, "replayed", path, **simulation, **QUICK)
    assert replayed["frames"]["acquired"] == recorded["frames"]["acquired"]
    for key in ("trained", "validation", "void", "held_out"):
        assert replayed["frames"][key] == recorded["frames"][key]
    for perspective in range(3):
        first, second = reference(runs / "recorded", perspective), reference(runs / "replayed", perspective)
        for channel, image in first.items():
            np.testing.assert_array_equal(second[channel], image)


def test_ctrl_c_ends_everything_in_order_and_keeps_what_was_done(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(tmp_path, "stopped", acquisition__rate_hz=5.0, edge__backend="eager"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    telemetry = tmp_path / "stopped" / "telemetry.jsonl"
    wait_until(lambda: telemetry.exists() and '"acquired":1' in telemetry.read_text(), timeout_s=60)
    parts = psutil.Process(process.pid).children(recursive=True)
    assert len(parts) >= 4
    everybody = [*parts, psutil.Process(process.pid)]
    sockets = Path(tomllib.loads((tmp_path / "stopped" / "config.toml").read_text())["network"]["sockets_dir"])
    listened_at = addresses_listened_at(everybody)
    assert len(listened_at) <= 1, "nothing listens on a port but the page"
    assert not beyond_loopback(listened_at)
    assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    assert any(path.is_socket() for path in sockets.iterdir())
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert not sockets.exists()
    assert not [part for part in parts if part.is_running() and part.status() != psutil.STATUS_ZOMBIE]
    summary = json.loads((tmp_path / "stopped" / "summary.json").read_text())
    assert summary["frames"]["acquired"] > 0
    assert summary["interrupted"]
    assert "The run was interrupted" in (tmp_path / "stopped" / "report.html").read_text()


def test_a_run_goes_on_without_its_dashboard_and_says_so(tmp_path: Path) -> None:
    quick = {**QUICK, "dashboard.enabled": True}
    small = command(tmp_path, "blind", source__perspectives=2, retrieval__source="simulated", **quick)
    process = subprocess.Popen(small, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def dashboards() -> list[psutil.Process]:
        return [child for child in psutil.Process(process.pid).children(recursive=True) if is_dashboard(child)]

    def is_dashboard(child: psutil.Process) -> bool:
        try:
            return "dashboard" in child.cmdline()
        except psutil.Error:  # it has ended since it was listed
            return False

    wait_until(lambda: bool(dashboards()), timeout_s=60)
    for dashboard in dashboards():
        dashboard.kill()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "dashboard failed" in errors
    frames = json.loads((tmp_path / "blind" / "summary.json").read_text())["frames"]
    assert (frames["inferred"], frames["lost"]) == (200, 0)
