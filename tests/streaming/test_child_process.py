"""The beginning of a child process, as its parent sees it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from ptychoflow.streaming.child import Child

READS = "from ptychoflow.streaming.child_process import requests_of_parent; requests = requests_of_parent(); "


@pytest.mark.parametrize(
    ("then", "status", "said"),
    [
        ("import sys; sys.exit('the GPU is lost')", 1, "the GPU is lost\n"),
        ("print(requests.get(timeout=60))", 0, ""),
    ],
)
def test_a_child_that_ends_while_it_listens_ends_as_it_says(then: str, status: int, said: str) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", READS + then], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    child.stdin.write(b"a job\n")
    child.stdin.flush()
    try:
        assert child.wait(60) == status
        assert child.stderr.read().decode() == said
        assert child.stdout.read() == (b"" if status else b"b'a job\\n'\n")
    finally:
        child.kill()
        for pipe in (child.stdin, child.stdout, child.stderr):
            pipe.close()


def test_ctrl_c_does_not_reach_a_child_that_still_imports(tmp_path: Path) -> None:
    (tmp_path / "echo.py").write_text("print(input())")
    with closing(Child("echo", [], threads=1, environment={"PYTHONPATH": str(tmp_path)})) as child:
        os.kill(child.pid, signal.SIGINT)
        child.send(b"still there")
        assert child.receive(60.0) == b"still there\n"
