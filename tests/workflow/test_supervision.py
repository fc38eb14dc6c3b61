"""Supervision of real child processes: how they end is noticed, and none is left, whatever happens."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support import Stopwatch, wait_until

from ptychoflow.streaming.events import Part
from ptychoflow.workflow.launching.processes import is_alive, terminate_in_order
from ptychoflow.workflow.launching.supervision import PartCommand, PartEnd, Supervisor

ANNOUNCE = (
    "import os, pathlib, sys; own = pathlib.Path(sys.argv[1]); new = own.with_name(own.name + '.new');"
    "new.write_text(str(os.getpid())); new.rename(own);"
)
SLEEP = f"{ANNOUNCE} import time; time.sleep(600)"
IGNORE_SIGTERM = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
DEAF_SLEEP = f"{IGNORE_SIGTERM} {SLEEP}"


def gone(pid: int) -> bool:
    try:
        return not is_alive(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return True


class Children:
    """Makes commands that run Python code; a child announces itself by a file with its process id."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def command(self, part: Part, code: str, **environment: str) -> PartCommand:
        arguments = [sys.executable, "-c", code, str(self.folder / part)]
        return PartCommand(part, arguments, self.folder / f"{part}.log", environment)

    def pid(self, name: str) -> int:
        wait_until((self.folder / name).exists)
        return int((self.folder / name).read_text())


@pytest.fixture
def children(tmp_path: Path) -> Children:
    return Children(tmp_path)


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    with Supervisor(grace_s=1.0) as running:
        yield running


def first_end(supervisor: Supervisor) -> PartEnd:
    ends: list[PartEnd] = []
    wait_until(lambda: ends.extend(supervisor.ended()) or ends)
    return ends[0]


def test_a_failure_is_told_with_status_last_words_and_log(supervisor: Supervisor, children: Children) -> None:
    code = "import sys; print('began'); print('ptychoflow: disk full'); print('trailing noise'); sys.exit(3)"
    supervisor.start(children.command(Part.TRAINER, code))
    end = first_end(supervisor)
    assert (end.part, end.status, end.failed, end.last_words) == (Part.TRAINER, 3, True, "disk full")
    assert end.describe() == f"trainer failed (exit status 3): disk full; its log is {children.folder / 'trainer.log'}"
    assert supervisor.running == frozenset()


def test_a_part_that_ends_well_has_not_failed(supervisor: Supervisor, children: Children) -> None:
    supervisor.start(children.command(Part.EDGE, "import os; print(os.environ['GIVEN'])", GIVEN="by the launcher"))
    end = first_end(supervisor)
    assert not end.failed
    assert (children.folder / "edge.log").read_text() == "by the launcher\n"


def test_a_killed_part_is_told_by_its_signal(supervisor: Supervisor, children: Children) -> None:
    supervisor.start(children.command(Part.EDGE, SLEEP))
    os.kill(children.pid("edge"), signal.SIGKILL)
    assert "edge failed (ended by signal SIGKILL)" in first_end(supervisor).describe()


def test_a_part_killed_by_a_signal_without_a_name_is_told_by_its_number(
    supervisor: Supervisor, children: Children
) -> None:
    supervisor.start(children.command(Part.EDGE, SLEEP))
    os.kill(children.pid("edge"), signal.SIGRTMIN + 1)
    assert f"edge failed (ended by signal {signal.SIGRTMIN + 1})" in first_end(supervisor).describe()


def test_a_crashed_acquisition_is_told_with_what_to_do(supervisor: Supervisor, children: Children) -> None:
    crash = "import faulthandler; faulthandler.enable(2); print('reading'); faulthandler._sigsegv()"
    for part, said in (
        (Part.ACQUISITION, ": a library crashed while it read the scan; the file is damaged"),
        (Part.EDGE, ";"),
    ):
        supervisor.start(children.command(part, crash))
        end = first_end(supervisor)
        assert end.describe().startswith(f"{part} failed (ended by signal SIGSEGV){said}")
        assert end.reason.startswith(f"ended by signal SIGSEGV{said.rstrip(';')}")


def test_parts_of_a_stage_are_asked_to_end_at_once_and_those_of_the_next_when_they_have(children: Children) -> None:
    on_term = f"""
import signal, sys, time, pathlib
own = pathlib.Path(sys.argv[1])
def note(what):
    with (own.parent / "order").open("a") as order:
        order.write(own.name + " " + what + "\\n")
def end(*_):
    note("asked")
    deadline_s = time.monotonic() + 20
    while (own.parent / "order").read_text().count("asked") < 2 and time.monotonic() < deadline_s:
        time.sleep(0.01)
    note("ends")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
{SLEEP}
"""
    stages = ((Part.TRAINER, Part.EDGE), (Part.DASHBOARD,))
    with Supervisor(grace_s=120.0) as supervisor:
        for part in (Part.DASHBOARD, Part.EDGE, Part.TRAINER):
            supervisor.start(children.command(part, on_term))
            children.pid(part)
        ends = supervisor.stop(stages)
    assert {(end.part, end.status) for end in ends} == {(part, 0) for stage in stages for part in stage}
    said = (children.folder / "order").read_text().splitlines()
    assert set(said[:2]) == {"trainer asked", "edge asked"}
    assert set(said[2:4]) == {"trainer ends", "edge ends"}
    assert said[4:] == ["dashboard asked", "dashboard ends"]


def test_who_ignores_the_request_is_killed_with_all_descendants(supervisor: Supervisor, children: Children) -> None:
    code = f"""
{IGNORE_SIGTERM}
import subprocess, sys
inner = {DEAF_SLEEP!r}
subprocess.Popen([sys.executable, "-c", inner, sys.argv[1] + ".same-group"])
subprocess.Popen([sys.executable, "-c", inner, sys.argv[1] + ".own-session"], start_new_session=True)
{SLEEP}
"""
    supervisor.start(children.command(Part.TRAINER, code))
    pids = [children.pid(name) for name in ("trainer", "trainer.same-group", "trainer.own-session")]
    with Stopwatch() as stopwatch:
        (end,) = supervisor.stop([[Part.TRAINER]])
    assert stopwatch.passed_s < 5.0
    assert end.status == -signal.SIGKILL
    wait_until(lambda: all(gone(pid) for pid in pids))


def test_a_descendant_that_outlives_its_part_is_killed(children: Children, supervisor: Supervisor) -> None:
    code = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {DEAF_SLEEP!r}, sys.argv[1] + ".child"])
{SLEEP}
"""
    supervisor.start(children.command(Part.ACQUISITION, code))
    pids = [children.pid(name) for name in ("acquisition", "acquisition.child")]
    supervisor.stop([[Part.ACQUISITION]])
    wait_until(lambda: all(gone(pid) for pid in pids))


def test_leaving_the_context_ends_what_still_runs(children: Children) -> None:
    with pytest.raises(ValueError, match="bug"), Supervisor() as supervisor:
        supervisor.start(children.command(Part.DASHBOARD, SLEEP))
        pid = children.pid("dashboard")
        raise ValueError("bug")
    assert gone(pid)


LAUNCHER = """
import sys, time
from pathlib import Path
from ptychoflow.streaming.events import Part
from ptychoflow.workflow.launching.supervision import PartCommand, Supervisor
folder = Path(sys.argv[1])
supervisor = Supervisor(grace_s=1.0)
for part, code in ((Part.EDGE, sys.argv[2]), (Part.TRAINER, sys.argv[3])):
    supervisor.start(PartCommand(part, [sys.executable, "-c", code, str(folder / part)], folder / "log"))
(folder / "launched").write_text("0")
time.sleep(600)
"""


def test_a_killed_launcher_leaves_nobody_behind(children: Children) -> None:
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCHER, str(children.folder), SLEEP, DEAF_SLEEP])
    try:
        pids = [children.pid("edge"), children.pid("trainer")]
        wait_until((children.folder / "launched").exists)
        watchers = psutil.Process(launcher.pid).children(recursive=True)
    finally:
        launcher.kill()
        launcher.wait()
    wait_until(lambda: all(gone(pid) for pid in pids))
    wait_until(lambda: not any(is_alive(process) for process in watchers))


def test_a_killed_watchdog_disturbs_nobody(children: Children) -> None:
    with Supervisor(grace_s=1.0) as supervisor:
        (watchdog,) = (one for one in psutil.Process().children() if any("watchdog" in word for word in one.cmdline()))
        watchdog.kill()
        wait_until(lambda: not is_alive(watchdog))
        supervisor.start(children.command(Part.TRAINER, SLEEP))
        pid = children.pid("trainer")
        assert supervisor.running == {Part.TRAINER}
    assert gone(pid)


def test_a_run_whose_every_part_is_deaf_is_over_in_less_than_ten_seconds(children: Children) -> None:
    parts = (Part.ACQUISITION, Part.TRAINER, Part.EDGE, Part.DASHBOARD)
    with Supervisor() as supervisor:
        for part in parts:
            supervisor.start(children.command(part, DEAF_SLEEP))
            children.pid(part)
        with Stopwatch() as stopwatch:
            supervisor.stop([parts[:3], parts[3:]])
    assert stopwatch.passed_s < 9.0  # summary and report take the rest


def test_terminating_nobody_takes_no_time() -> None:
    began_s = time.monotonic()
    terminate_in_order([], grace_s=600.0)
    assert time.monotonic() - began_s < 60.0
