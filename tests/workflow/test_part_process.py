"""What surrounds a part's work: signals, logs, and the word to the hub when it fails."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from support import wait_until

from ptychoflow.streaming.commands import AnyCommand, CommandHub, CommandSender, StopRun, WriteCheckpoint
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.events import Part, PartState, PartStatus
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.streaming.telemetry import TelemetryHub
from ptychoflow.workflow.configuration.config import Config, load_config, write_config
from ptychoflow.workflow.launching.part_process import part_process, stop_on_signals
from ptychoflow.workflow.launching.ports import resolve_ports
from ptychoflow.workflow.launching.processes import is_alive
from ptychoflow.workflow.launching.run_folder import claimed


@pytest.fixture
def config(tmp_path: Path) -> Config:
    resolved = load_config("simulated", assignments=[f"run.directory={tmp_path}", "run.name=run"])
    network = resolve_ports(NetworkSettings(), ranks=2)
    return resolved.model_copy(update={"network": network})


@pytest.fixture
def config_file(config: Config, tmp_path: Path) -> Path:
    write_config(config, tmp_path / "config.toml")
    return tmp_path / "config.toml"


def test_signals_set_stop_and_only_ctrl_c_counts_as_interruption() -> None:
    for number, interruption in ((signal.SIGTERM, False), (signal.SIGHUP, False), (signal.SIGINT, True)):
        stop, interrupted = threading.Event(), threading.Event()
        before = signal.getsignal(number)
        with stop_on_signals(stop, interrupted=interrupted):
            os.kill(os.getpid(), number)
            wait_until(stop.is_set)
        assert interrupted.is_set() is interruption
        assert signal.getsignal(number) is before


def test_a_sighup_that_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stop = threading.Event()
        with stop_on_signals(stop):
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.wait(0.5)
            os.kill(os.getpid(), signal.SIGTERM)
            wait_until(stop.is_set)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


PART = """
import sys
from pathlib import Path
from ptychoflow.streaming.events import Part
from ptychoflow.workflow.logs import configure_logging
from ptychoflow.workflow.launching.part_process import part_process
configure_logging()
with part_process(Part.EDGE, Path(sys.argv[1]), None) as part:
    print("ready", flush=True)
    while not part.stop.wait(0.1):  # a signal that comes just before a wait without end does not wake it
        pass
    print("ending in order", flush=True)
"""


@pytest.mark.parametrize(("part", "stops"), [(Part.EDGE, True), (Part.DASHBOARD, False)])
def test_the_command_to_stop_the_run_ends_a_part_but_not_the_page(
    config_file: Path, config: Config, part: Part, stops: bool
) -> None:
    heard: list[AnyCommand] = []
    with (
        closing(CommandHub(config.network, on_command=heard.append)),
        part_process(part, config_file, None) as process,
        closing(CommandSender(config.network)) as sender,
    ):
        sender.send(WriteCheckpoint())
        # a part that has not yet subscribed misses it: people would press again
        wait_until(lambda: process.stop.is_set() or _again(sender, heard))
    assert process.stop.is_set() is stops


def _again(sender: CommandSender, heard: list[AnyCommand]) -> bool:
    sender.send(StopRun())
    return len(heard) > 200


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_part_ends_in_order_on_a_signal(config_file: Path, number: signal.Signals, status: int) -> None:
    command = [sys.executable, "-c", PART, str(config_file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        rest, _ = process.communicate(timeout=30)
    assert rest == "ending in order\n"
    assert process.returncode == status
    assert "edge has ended" in (config_file.parent / "run" / "logs" / "edge.log").read_text()


@pytest.mark.parametrize(("command", "role"), [("acquire", "acquisition"), ("edge", "edge")])
def test_a_part_without_its_key_says_so_in_one_line(
    config: Config, config_file: Path, tmp_path: Path, command: str, role: str
) -> None:
    network = config.network.model_copy(update={"keys_dir": tmp_path / "absent"})
    write_config(config.model_copy(update={"network": network}), config_file)
    answer = subprocess.run(
        [sys.executable, "-m", "ptychoflow", command, "--config", str(config_file)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert answer.returncode == 2
    assert "Traceback" not in answer.stderr
    assert answer.stderr.splitlines()[-1].startswith(f"ptychoflow: {tmp_path}/absent holds no {role}.key_secret: copy")


LAUNCHER = """
import sys, time
from pathlib import Path
from ptychoflow.streaming.events import Part
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.workflow.launching.run_folder import claimed
from ptychoflow.workflow.launching.supervision import PartCommand, Supervisor
folder, config, code = sys.argv[1:]
with claimed(RunFolder(Path(folder))) as claim, Supervisor(claim=claim) as supervisor:
    supervisor.start(PartCommand(Part.EDGE, [sys.executable, "-c", code, config], Path(folder) / "part.log"))
    time.sleep(600)
"""
DEAF_PART = PART.replace("configure_logging()", "part_process.__wrapped__.__globals__['GRACE_S'] = 0.5").replace(
    'print("ending', 'import time; time.sleep(600); print("ending'
)


@pytest.mark.parametrize(("code", "in_order"), [(PART, True), (DEAF_PART, False)], ids=["hears", "deaf"])
def test_a_part_ends_when_launcher_and_watchdog_were_killed_and_until_then_nobody_runs_beside_it(
    config_file: Path, tmp_path: Path, code: str, in_order: bool
) -> None:
    folder, log = RunFolder(tmp_path), tmp_path / "part.log"
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCHER, str(tmp_path), str(config_file), code])
    wait_until(lambda: log.exists() and "ready" in log.read_text(), timeout_s=60)
    watchdog, part = sorted(psutil.Process(launcher.pid).children(), key=lambda child: code in child.cmdline())
    try:
        part.suspend()
        for process in (watchdog, launcher):
            process.kill()
        launcher.wait()
        with pytest.raises(UserError, match="is still going on"), claimed(folder, patience_s=0.0):
            pass
        part.resume()
        with claimed(folder, patience_s=20.0):
            wait_until(lambda: not is_alive(part))
    finally:
        part.kill()
    assert ("ending in order" in log.read_text()) is in_order


@pytest.mark.parametrize(
    ("why", "told"),
    [(UserError("no beam"), "no beam"), (ValueError("cannot read sc\udce4n.h5"), r"cannot read sc\udce4n.h5")],
)
def test_the_hub_hears_why_a_part_gives_up(
    config: Config, config_file: Path, tmp_path: Path, why: Exception, told: str
) -> None:
    heard: list[object] = []
    hub = TelemetryHub(
        config.network, jsonl=tmp_path / "t.jsonl", on_event=lambda event, _: heard.append((event.part, event.event))
    )
    try:
        with (
            pytest.raises(type(why)) as raised,
            part_process(Part.ACQUISITION, config_file, None),
        ):
            raise why
        wait_until(lambda: heard)
    finally:
        hub.close()
    assert heard == [(Part.ACQUISITION, PartStatus(PartState.FAILED, told))]
    assert raised.value is why


@pytest.mark.parametrize("part", [Part.ACQUISITION, Part.TRAINER, Part.EDGE])
def test_no_part_works_in_a_run_that_has_ended_well(config: Config, config_file: Path, part: Part) -> None:
    folder = config.run.context().folder
    folder.path.mkdir(parents=True)
    folder.summary.write_text('{"ended_well": false}')
    with part_process(part, config_file, None):
        pass
    folder.summary.write_text('{"ended_well": true}')
    with (
        pytest.raises(UserError, match="has ended well: there is nothing to resume"),
        part_process(part, config_file, None),
    ):
        pass
    with part_process(Part.DASHBOARD, config_file, None):
        pass


PARENT = """
import subprocess, sys, time
child = "import os, sys, time; from ptychoflow.workflow.launching.torchrun import die_with_parent;"
child += "die_with_parent(os.getppid());"
child += "print(os.getpid(), flush=True); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_a_rank_dies_with_torchrun() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
        # the child holds the other end of the pipe until it dies
        assert parent.stdout.read() == ""
    wait_until(lambda: not Path(f"/proc/{pid}").exists() or "State:\tZ" in Path(f"/proc/{pid}/status").read_text())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_a_rank_whose_parent_died_meanwhile_dies_at_once() -> None:
    code = "from ptychoflow.workflow.launching.torchrun import die_with_parent; die_with_parent(1 << 30)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == -signal.SIGKILL
