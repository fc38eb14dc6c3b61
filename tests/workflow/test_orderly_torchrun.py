"""torchrun that is asked to end, as when a job's time is up."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from support import wait_until

from ptychoflow.workflow.launching.torchrun import LOCAL_TORCHRUN

RANK = "import pathlib, time; pathlib.Path('there').touch(); time.sleep(600)"


def test_torchrun_that_is_stopped_says_so_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "rank.py").write_text(RANK)
    command = [sys.executable, "-m", LOCAL_TORCHRUN, "--nproc-per-node=1", "rank.py"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_until((tmp_path / "there").exists, timeout_s=60.0)
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=60.0)
        finally:
            process.kill()
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in errors
    assert errors.splitlines()[-1] == "ptychoflow: torchrun has ended its ranks, as SIGTERM asked for"
