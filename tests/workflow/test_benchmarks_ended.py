"""Benchmarks that are ended before they are done: in order, and with the processes that they have started."""

import multiprocessing
import os
import signal
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest
from support import wait_until

from ptychoflow.workflow.benchmarks.helper_process import HelperProcess
from ptychoflow.workflow.exit_status import INTERRUPTED_STATUS

RECEIVERS = 4
TIMEOUT_S = 60.0


@pytest.mark.parametrize(("number", "everybody"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_a_benchmark_that_is_ended_leaves_no_process(tmp_path: Path, number: signal.Signals, everybody: bool) -> None:
    with (tmp_path / "log").open("wb") as log:
        command = [sys.executable, "-m", "ptychoflow", "bench", "stream"]
        bench = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True)
    started: list[psutil.Process] = []
    try:
        helpers = psutil.Process(bench.pid)
        # with the one that keeps track of what they share
        wait_until(lambda: len(helpers.children()) > RECEIVERS, timeout_s=TIMEOUT_S)
        started = helpers.children()
        (os.killpg if everybody else os.kill)(bench.pid, number)
        assert bench.wait(TIMEOUT_S) == INTERRUPTED_STATUS
        assert psutil.wait_procs(started, TIMEOUT_S)[1] == []
        said = (tmp_path / "log").read_text()
        assert said.endswith("ptychoflow: interrupted\n")
        assert "Traceback" not in said
    finally:
        for process in [*started, bench]:
            if process.poll() is None if isinstance(process, subprocess.Popen) else process.is_running():
                process.kill()


def test_the_process_beside_a_benchmark_does_not_hear_ctrl_c() -> None:
    ours, theirs = multiprocessing.Pipe()
    process = HelperProcess(_answer, theirs)
    process.start()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)  # while it imports, too
    ours.send("still there")
    assert ours.poll(TIMEOUT_S)
    assert ours.recv() == "still there"
    process.join(TIMEOUT_S)
    assert process.exitcode == 0
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def _answer(connection: Connection) -> None:
    connection.send(connection.recv())
