"""Runs that another version of the program wrote, or whose telemetry was damaged: one line, never a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from speaking import telemetry

from ptychoflow.streaming.events import WeightsApplied
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.streaming.state.run import RunState
from ptychoflow.workflow.results import write_results

OLD = b'{"time_s":1.0,"sender":"edge","event":{"type":"weights_applied","version":1}}\n'


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """Return the folder of a run that has ended."""
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    write_results(RunState(), folder)
    return folder


@pytest.mark.parametrize("command", ["report", "view"])
def test_a_run_of_another_version_is_one_clear_line(folder: RunFolder, command: str) -> None:
    folder.telemetry.write_bytes(OLD * 3)
    done = subprocess.run(
        [sys.executable, "-m", "ptychoflow", command, str(folder.path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "was written by another version of ptychoflow" in line


def test_one_bad_byte_stops_no_report(folder: RunFolder) -> None:
    good = msgspec.json.encode(telemetry(WeightsApplied(1))) + b"\n"
    folder.telemetry.write_bytes(good + good.replace(b"edge", b"\xff\xff") + good)
    done = subprocess.run(
        [sys.executable, "-m", "ptychoflow", "report", str(folder.path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, str(folder.report))
