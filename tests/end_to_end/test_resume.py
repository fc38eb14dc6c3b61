"""Runs whose processes are killed in the middle of learning, and what becomes of them."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import psutil
import pytest
from listening import addresses_listened_at, beyond_loopback
from support import wait_until

from ptychoflow.acquisition.readers.layout import ANGLE_DEG, entry_name
from ptychoflow.acquisition.simulate import simulate_to_file
from ptychoflow.acquisition.source_settings import SimulationSettings
from ptychoflow.streaming.errors import UserError
from ptychoflow.trainer.checkpoints.checkpoint import newest
from ptychoflow.trainer.online.frame_indices import indices_in
from ptychoflow.workflow.launching.resuming import resumed_config

FRAMES, HELD_OUT = 240, 60
SETTINGS = {
    "source.kind": "simulation",
    "source.perspectives": 4,
    "source.frames_per_perspective": 60,
    "source.frame_shape_px": [32, 32],
    "source.seed": 5,
    "acquisition.rate_hz": 40.0,
    "acquisition.batch_frames": 8,
    "acquisition.roles.hold_out": "last_perspective",
    "retrieval.source": "simulated",
    "retrieval.target_shape_px": [16, 16],
    "trainer.batch_size": 4,
    "trainer.finish_s": 1.0,
    "trainer.model.width": 4,
    "trainer.buffer.capacity": 100,
    "trainer.buffer.representatives": 4,
    "trainer.buffer.candidates": 4,
    "trainer.checkpoint.every_s": 0.5,
    "edge.backend": "eager",
    "edge.refresh_share": 0.2,
    "dashboard.enabled": False,
}


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command line of ours; nothing of it is left afterwards."""
    with subprocess.Popen(
        [sys.executable, "-m", "ptychoflow", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            kill_all(process)


def begin(folder: Path, ranks: int, **settings: Any) -> list[str]:
    changes = {key.replace("__", "."): value for key, value in settings.items()}
    values = {**SETTINGS, "run.directory": str(folder.parent), "trainer.ranks": ranks, **changes}
    return ["run", "--name", folder.name, *(f"--set={key}={json.dumps(value)}" for key, value in values.items())]


def processes(process: subprocess.Popen[str], *words: str) -> list[psutil.Process]:
    """The descendants of a command whose command lines hold all these words."""
    children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    return [child for child in children if set(words) <= set(command_line(child))]


def command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it has ended since it was listed
        return []


def kill_all(process: subprocess.Popen[str]) -> None:
    everything = processes(process)
    process.kill()
    for one in everything:
        try:
            one.kill()
        except psutil.Error:
            continue
    psutil.wait_procs(everything, timeout=20)


def wait_for_checkpoint(folder: Path, process: subprocess.Popen[str]) -> None:
    """Wait until training can go on from somewhere in its middle."""

    def there() -> bool:
        assert process.poll() is None, process.communicate()[1]
        return (folder / "checkpoints").exists() and newest(folder / "checkpoints") is not None

    wait_until(there, timeout_s=120)


def ended(process: subprocess.Popen[str], folder: Path) -> dict[str, Any]:
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors[-3000:]
    return json.loads((folder / "summary.json").read_text())


def require_every_frame_once(summary: dict[str, Any], folder: Path) -> None:
    """The ledger balances, and the model's own memory of what it was trained on says the same."""
    frames = summary["frames"]
    assert (frames["acquired"], frames["inferred"], frames["held_out"]) == (FRAMES, FRAMES, HELD_OUT)
    assert (frames["lost"], frames["rejected"], frames["unlabelled"]) == (0, 0, 0)
    assert frames["trained"] + frames["validation"] + frames["void"] == FRAMES - HELD_OUT
    checkpoint = newest(folder / "checkpoints")
    assert checkpoint is not None
    shards = [shard["stream"] for shard in checkpoint.shards()]
    assert sum(shard["trained"] for shard in shards) == frames["trained"]
    done = {
        (index, frame)
        for shard in shards
        for index, runs in shard["done"].items()
        for frame in indices_in(runs.numpy()).tolist()
    }
    assert len(done) == frames["trained"] + frames["validation"]
    assert summary["training"]["stream_samples"] == frames["trained"]
    assert summary["training"]["steps"] > summary["training"]["resumed_from_steps"][-1]
    assert summary["ended_well"]


def test_a_killed_run_is_resumed_under_another_name_and_on_fewer_ranks(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with started(*begin(folder, ranks=2)) as process:
        wait_for_checkpoint(folder, process)
        sockets = Path(tomllib.loads((folder / "config.toml").read_text())["network"]["sockets_dir"])
        assert sockets.exists()
        listened_at = addresses_listened_at(processes(process))
        assert len(listened_at) >= 3, "gloo of both ranks, and the buffer"
        assert not beyond_loopback(listened_at)
        kill_all(process)
    assert sockets.exists(), "the watchdog was killed too"
    assert not (folder / "summary.json").exists()
    versions = len(list((folder / "weights").glob("v*.safetensors")))
    folder = folder.rename(tmp_path / "renamed")
    with started("resume", str(folder), "--ranks=1") as process:
        summary = ended(process, folder)
    require_every_frame_once(summary, folder)
    assert not sockets.exists()
    assert summary["training"]["resumed_from_steps"][0] > 0
    published = sorted(path.stem for path in (folder / "weights").glob("v*.safetensors"))
    assert published == [f"v{number + 1:06d}" for number in range(len(published))], "versions go on"
    assert len(published) > versions
    with pytest.raises(UserError, match="has ended well: there is nothing to resume"):
        resumed_config(folder)


ANGLES_DEG = {"a.h5": 20.0, "b.h5": -15.0, "c.h5": 2.0, "d.h5": 7.5}


@pytest.fixture
def several_files(tmp_path: Path) -> list[str]:
    """Recordings of one perspective each, whose names are in another order than their angles."""
    paths = []
    for name, angle_deg in ANGLES_DEG.items():
        paths.append(tmp_path / name)
        one = SimulationSettings(
            perspectives=1, frames_per_perspective=FRAMES // 4, frame_shape_px=(32, 32), seed=len(paths)
        )
        simulate_to_file(one, paths[-1])
        with h5py.File(paths[-1], "a") as file:
            file[f"{entry_name(0)}/{ANGLE_DEG}"][...] = angle_deg
    return list(map(str, paths))


def test_a_killed_run_of_several_files_is_resumed_as_one_scan_in_the_order_of_their_angles(
    tmp_path: Path, several_files: list[str]
) -> None:
    folder = tmp_path / "run"
    verb, *options = [
        one for one in begin(folder, 1, retrieval__source="recorded", trainer__pace="stream") if "=source." not in one
    ]
    with started(verb, *several_files, *options) as process:
        wait_for_checkpoint(folder, process)
        kill_all(process)
    assert not (folder / "summary.json").exists()
    with started("resume", str(folder)) as process:
        summary = ended(process, folder)
    require_every_frame_once(summary, folder)
    assert [one["angle_deg"] for one in summary["perspectives"]] == sorted(ANGLES_DEG.values())
    said = "4 files are perspectives of one scan, in the order of their angle"
    assert said in (folder / "report.html").read_text()
