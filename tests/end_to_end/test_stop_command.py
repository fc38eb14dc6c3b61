"""The command to stop a run, as the page gives it: everything ends in order, and what was done is kept."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from contextlib import closing
from pathlib import Path

import psutil
from support import wait_until

from ptychoflow.streaming.commands import CommandSender, StopRun
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.workflow.launching.processes import is_alive

ENDLESS = (
    "source.kind=simulation",
    "source.perspectives=2",
    "source.frames_per_perspective=200",
    "source.frame_shape_px=[32, 32]",
    "retrieval.source=simulated",
    "retrieval.target_shape_px=[16, 16]",
    "acquisition.rate_hz=5",
    "trainer.model.width=4",
    "edge.backend=eager",
)


def test_a_run_is_stopped_by_a_command(tmp_path: Path) -> None:
    start = [sys.executable, "-m", "ptychoflow", "run", "--no-dashboard", "--name=told"]
    assignments = [f"--set={assignment}" for assignment in (*ENDLESS, f"run.directory={tmp_path}")]
    process = subprocess.Popen([*start, *assignments], stderr=subprocess.PIPE, text=True)
    telemetry = tmp_path / "told" / "telemetry.jsonl"
    wait_until(lambda: telemetry.exists() and '"acquired":1' in telemetry.read_text(), timeout_s=90)
    parts = psutil.Process(process.pid).children(recursive=True)
    settings = tomllib.loads((tmp_path / "told" / "config.toml").read_text())
    with closing(CommandSender(NetworkSettings(**settings["network"]))) as sender:
        sender.send(StopRun())
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert not [part for part in parts if is_alive(part)]
    summary = json.loads((tmp_path / "told" / "summary.json").read_text())
    assert summary["interrupted"]
    assert summary["failures"] == []
    assert 0 < summary["frames"]["acquired"] < 400
