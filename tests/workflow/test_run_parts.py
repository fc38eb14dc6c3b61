"""The parts of a run beside each other: which of them is started again when it is killed."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import wait_until

from ptychoflow.streaming.events import Part
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.streaming.state.run import RunState
from ptychoflow.streaming.telemetry import TelemetrySender
from ptychoflow.workflow.launching import run_parts
from ptychoflow.workflow.launching.run_parts import RunParts
from ptychoflow.workflow.launching.supervision import PartCommand

KILL_ONESELF = "import os, signal, sys; open(sys.argv[1], 'a').write('x'); os.kill(os.getpid(), signal.SIGKILL)"
KILL_ONESELF_ONCE = f"import os, sys; os.path.exists(sys.argv[1]) and sys.exit(); {KILL_ONESELF}"
FAIL = "import sys; open(sys.argv[1], 'a').write('x'); sys.exit(1)"


@pytest.fixture
def reporter(network: NetworkSettings) -> Iterator[TelemetrySender]:
    sender = TelemetrySender(network, part=Part.WORKFLOW)
    yield sender
    sender.close()


@pytest.mark.parametrize(
    ("part", "code", "starts", "status"),
    [
        (Part.TRAINER, KILL_ONESELF_ONCE, 1, None),
        (Part.TRAINER, KILL_ONESELF, 3, -9),
        (Part.TRAINER, FAIL, 1, 1),
        (Part.EDGE, KILL_ONESELF, 1, -9),
    ],
    ids=["killed once", "killed again and again", "failed", "another part"],
)
def test_a_trainer_that_was_killed_is_started_again_so_often_and_nothing_else_is(
    tmp_path: Path, reporter: TelemetrySender, part: Part, code: str, starts: int, status: int | None
) -> None:
    counted = tmp_path / "starts"
    command = PartCommand(part, [sys.executable, "-c", code, str(counted)], tmp_path / "log")
    end = RunParts([command], reporter, RunState(), restarts=2).run(threading.Event())
    assert len(counted.read_text()) == starts
    assert (end.status if end else None) == status


END_WHEN_ASKED = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(int(sys.argv[2])))
pathlib.Path(sys.argv[1]).touch()
time.sleep(600)
"""
END_ONCE_THERE = "import os, sys, time\nwhile not os.path.exists(sys.argv[1]):\n    time.sleep(0.05)"


@pytest.mark.parametrize("status", [0, 1])
def test_an_output_that_says_at_the_end_that_it_has_failed_is_what_failed(
    tmp_path: Path, reporter: TelemetrySender, status: int
) -> None:
    ready = str(tmp_path / "ready")
    commands = [
        PartCommand(Part.OUTPUTS, [sys.executable, "-c", END_WHEN_ASKED, ready, str(status)], tmp_path / "log"),
        PartCommand(Part.ACQUISITION, [sys.executable, "-c", END_ONCE_THERE, ready], tmp_path / "log"),
    ]
    end = RunParts(commands, reporter, RunState(), restarts=0).run(threading.Event())
    assert ((end.part, end.status) if end else None) == ((Part.OUTPUTS, 1) if status else None)


def test_a_part_that_fails_while_a_run_that_was_told_to_stop_ends_is_not_what_failed(
    tmp_path: Path, reporter: TelemetrySender
) -> None:
    ready, stop = tmp_path / "ready", threading.Event()
    command = PartCommand(Part.EDGE, [sys.executable, "-c", END_WHEN_ASKED, str(ready), "1"], tmp_path / "log")
    waiting = threading.Thread(target=lambda: (wait_until(ready.exists), stop.set()))
    waiting.start()
    assert RunParts([command], reporter, RunState(), restarts=0).run(stop) is None
    waiting.join()


WAIT_THEN_KILL_ONESELF = """
import os, signal, sys, time
open(sys.argv[1], 'a').write('x')
while not (os.path.exists(sys.argv[2]) and (pid := open(sys.argv[2]).read())):
    time.sleep(0.05)
while os.path.exists(f"/proc/{pid}") and "State:\\tZ" not in open(f"/proc/{pid}/status").read():
    time.sleep(0.05)
os.kill(os.getpid(), signal.SIGKILL)
"""
END = "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid()))"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_trainer_that_was_killed_when_the_acquisition_had_let_go_of_everything_is_done(
    tmp_path: Path, reporter: TelemetrySender
) -> None:
    counted, ended = tmp_path / "starts", tmp_path / "ended"
    waiting = [sys.executable, "-c", WAIT_THEN_KILL_ONESELF, str(counted), str(ended)]
    commands = [
        PartCommand(Part.TRAINER, waiting, tmp_path / "log"),
        PartCommand(Part.ACQUISITION, [sys.executable, "-c", END, str(ended)], tmp_path / "log"),
    ]
    assert RunParts(commands, reporter, RunState(), restarts=2).run(threading.Event()) is None
    assert counted.read_text() == "x"


KILL_ONESELF_THEN_WAIT = f"import os, sys, time; os.path.exists(sys.argv[1]) and time.sleep(600); {KILL_ONESELF}"


def test_a_trainer_that_was_killed_on_its_way_out_and_started_again_does_not_wait_for_ever(
    tmp_path: Path, reporter: TelemetrySender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_parts, "LEAVING_S", 1.0)
    started = str(tmp_path / "starts")
    commands = [
        PartCommand(Part.TRAINER, [sys.executable, "-c", KILL_ONESELF_THEN_WAIT, started], tmp_path / "log"),
        PartCommand(Part.ACQUISITION, [sys.executable, "-c", END_ONCE_THERE, started], tmp_path / "log"),
    ]
    assert RunParts(commands, reporter, RunState(), restarts=2).run(threading.Event()) is None
