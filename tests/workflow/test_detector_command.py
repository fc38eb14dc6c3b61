"""`ptychoflow detector` as a process."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import free_ports, is_free, wait_until

from ptychoflow.acquisition.recorder import Recorder
from ptychoflow.acquisition.simulation.scan import SimulatedScan
from ptychoflow.acquisition.source_settings import SimulationSettings


@pytest.fixture
def scan_file(tmp_path: Path) -> Path:
    simulated = SimulatedScan(SimulationSettings(perspectives=1, frames_per_perspective=16, frame_shape_px=(16, 16)))
    with Recorder(tmp_path / "scan.h5") as recorder:
        perspective = simulated.perspective(0)
        recorder.start_perspective(perspective)
        for batch in perspective.batches(16):
            recorder.append(batch)
    return tmp_path / "scan.h5"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_while_nobody_listens(scan_file: Path, number: signal.Signals) -> None:
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "ptychoflow", "detector", f"dectris-v2://127.0.0.1:{port}", str(scan_file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_until(lambda: not is_free(port), timeout_s=60)
            process.send_signal(number)
            out, err = process.communicate(timeout=10)
        finally:
            process.kill()
    assert (process.returncode, out) == (0, "dectris-v2: 0 frames sent\n"), err
