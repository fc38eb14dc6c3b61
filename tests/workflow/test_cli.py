"""The command line as a user meets it: real processes, their exit status, and what they print."""

import faulthandler
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import h5py
import pytest
from support import without_privileges

from ptychoflow.workflow.benchmarks.results import tell
from ptychoflow.workflow.cli import run_command_line
from ptychoflow.workflow.json_results import write_json


class Answer(NamedTuple):
    status: int
    stdout: str
    stderr: str


Command = Callable[..., Answer]
SMALL = (
    *("--set", "source.perspectives=2", "--set", "source.frames_per_perspective=9"),
    *("--set", "source.frame_shape_px=[32, 32]"),
)
"""Options of a small simulated scan."""


@pytest.fixture
def ptychoflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs a command line in an empty folder, in this process: importing everything anew takes seconds."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> Answer:
        status = run_command_line([str(argument) for argument in arguments])
        return Answer(status, *capfd.readouterr())

    return run


def complaint(answer: Answer) -> str:
    """Return the one line of a command that refused to work."""
    assert answer.status == 2, answer.stderr
    assert answer.stdout == ""
    assert answer.stderr.startswith("ptychoflow: ")
    assert answer.stderr.count("\n") == 1, answer.stderr
    return answer.stderr.removeprefix("ptychoflow: ").rstrip("\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Missing command"),
        (["rnu"], "No such command 'rnu'"),
        (["run", "--rats", "3"], "No such option: --rats"),
        (["run", "--preset", "dmeo"], "unknown preset 'dmeo'; the presets are aps, classification, demo, "),
    ],
)
def test_a_process_ends_with_status_2_and_one_line(tmp_path: Path, arguments: list[str], said: str) -> None:
    command = [sys.executable, "-m", "ptychoflow", *arguments]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert said in complaint(Answer(answer.returncode, answer.stdout, answer.stderr))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--rate", "fast"], "'--rate'"),
        (["rnu"], "try 'ptychoflow --help'"),
        (["inspect"], "try 'ptychoflow inspect --help'"),
        (["experiment", "ptychography", "--seeds", "0"], "try 'ptychoflow experiment ptychography --help'"),
        (["run", "--config"], "'--config' requires an argument"),
        (["run", "a.h5", "b.h5"], "b.h5"),
        (["inspect"], "Missing argument 'FILE'"),
        (["bench", "coffee"], "'coffee'"),
        (["run"], "nothing to scan"),
        (["run", "--preset", "simulated", "--set", "trainer.bach_size=1"], "did you mean trainer.batch_size?"),
        (["run", "--preset", "simulated", "--ranks", "0"], "setting trainer.ranks = 0 (from the command line)"),
        (["run", "--preset", "simulated", "--set", "acquisition.edge=false"], "acquisition.edge = false is for parts"),
        (["run", "--config", "absent.toml"], "absent.toml does not exist"),
        (["run", "absent.h5"], "absent.h5"),
        (["run", "absent.h5", "--probe", "p.npy"], "--probe is for the scan of a detector"),
        (["run", "--detector", "dectris-v2", "--map", "hxn"], "--map is for the scan of a file"),
        (["report", "absent"], "absent is not the folder of a run"),
        (["view", "absent"], "absent is not the folder of a run"),
        (["view", "alone.toml"], "alone.toml is not the folder of a run"),
        (["edge"], "nothing to scan: give a --config file with a [source] section; `ptychoflow run` also takes"),
        (["bench", "train", "--json", "absent/t.json"], "--json absent/t.json: there is no folder absent"),
        (["experiment", "ptychography", "--json", "absent/e.json"], "there is no folder absent; make it, or name"),
        (["bench", "train", "--json", "."], "--json .: this is a folder; name a file in it"),
        (["bench", "train", "--json", "alone.toml/t.json"], "there is no folder alone.toml"),
        (
            ["inspect", "alone.toml", "--plot", "absent/s.png"],
            "--plot absent/s.png: there is no folder absent",
        ),
        (["inspect", "alone.toml", "--plot", "."], "--plot .: this is a folder; name a file in it"),
        (
            ["keys", "alone.toml/keys"],
            "alone.toml/keys: Not a directory; a part of this path is a file",
        ),
        (["submit"], "Missing argument 'CONFIG'"),
        (["experiment", "classification", "--json", "/proc/t.json"], "--json /proc/t.json: this cannot be written"),
        (["edge", "--config", "alone.toml"], "port 0 is chosen by `ptychoflow run` only"),
    ],
)
def test_a_mistake_gets_one_line_and_leaves_nothing(
    ptychoflow: Command, tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "alone.toml").write_text('[source]\nkind = "simulation"\n')
    assert said in complaint(ptychoflow(*arguments))
    assert [path.name for path in tmp_path.iterdir()] == ["alone.toml"]


def test_output_that_nobody_reads_or_takes_is_no_bug(ptychoflow: Command, tmp_path: Path) -> None:
    assert ptychoflow("simulate", "scan.h5", *SMALL).status == 0
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "ptychoflow"]
    with os.fdopen(writing, "wb") as unread, Path("/dev/full").open("wb") as full:
        options: dict[str, Any] = {"cwd": tmp_path, "stderr": subprocess.PIPE, "text": True, "timeout": 120}
        answer = subprocess.run([*command, "inspect", "scan.h5"], stdout=unread, check=False, **options)
        assert answer.returncode == 1
        assert [line for line in answer.stderr.splitlines() if " INFO " not in line] == []
        answer = subprocess.run([*command, "--version"], stdout=full, check=False, **options)
        assert "No space left on device" in complaint(Answer(answer.returncode, "", answer.stderr))


def test_a_folder_with_neither_frames_nor_images_is_not_taken_for_one_of_images(
    ptychoflow: Command, tmp_path: Path
) -> None:
    (tmp_path / "beamtime").mkdir()
    (tmp_path / "beamtime" / "x_master.h5").write_bytes(b"")
    said = complaint(ptychoflow("run", "beamtime"))
    assert said.startswith("beamtime: this folder holds neither frames that can be read nor labelled images")


def test_a_file_that_is_no_scan_is_refused_before_anything_is_made(ptychoflow: Command, tmp_path: Path) -> None:
    (tmp_path / "notes.h5").write_text("not HDF5")
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    for name in ("notes.h5", "empty.h5"):
        assert name in complaint(ptychoflow("run", name))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("command", ["inspect", "run"])
def test_a_file_that_crashes_a_library_is_refused_before_anything_is_made(
    ptychoflow: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    assert ptychoflow("simulate", "scan.h5", *SMALL).status == 0
    # as a library does in the frame just read
    monkeypatch.setattr("ptychoflow.acquisition.preprocess.usable", lambda _: faulthandler._sigsegv())  # type: ignore[attr-defined]
    answer = ptychoflow(command, "scan.h5")
    assert answer.status == 2
    assert answer.stdout == ""
    assert re.search(r"^ptychoflow: .*scan\.h5: /entry_1: frames 0 to 0: .*SIGSEGV.*$", answer.stderr, re.MULTILINE)
    assert [path.name for path in tmp_path.iterdir()] == ["scan.h5"]


def test_a_taken_dashboard_port_is_refused_before_anything_is_made(ptychoflow: Command, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        answer = ptychoflow("run", "--preset", "simulated", "--set", f"dashboard.port={port}")
    assert f"port {port} is in use" in complaint(answer)
    assert not (tmp_path / "runs").exists()


def test_a_run_folder_that_cannot_be_made_is_refused(ptychoflow: Command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for directory in (tmp_path / "file", Path("/proc")):
        answer = ptychoflow("run", "--preset", "simulated", "--set", f"run.directory={directory}", "--no-dashboard")
        assert str(directory) in complaint(answer)


@pytest.mark.parametrize("command", ["view", "report", "resume", "inspect", "run"])
def test_what_may_not_be_read_is_told_in_one_line(ptychoflow: Command, command: str) -> None:
    with TemporaryDirectory() as made:  # a test's own folder is for its user alone
        Path(made).chmod(0o755)
        folder = Path(made) / "theirs"
        folder.mkdir(mode=0o700)
        (folder / "telemetry.jsonl").touch()
        (folder / "config.toml").touch()
        with without_privileges():
            said = complaint(ptychoflow(command, folder))
    assert str(folder) in said
    assert "Permission denied" in said


def test_keys_are_made_once(ptychoflow: Command, tmp_path: Path) -> None:
    assert ptychoflow("keys", "keys").status == 0
    assert "keys already" in complaint(ptychoflow("keys", "keys"))


def test_a_simulated_scan_can_be_inspected_and_drawn(ptychoflow: Command, tmp_path: Path) -> None:
    assert ptychoflow("simulate", "scan.h5", *SMALL).status == 0
    answer = ptychoflow("inspect", "scan.h5", "--plot", "scan.png")
    assert answer.status == 0, answer.stderr
    assert "18 of 32 × 32 px in 2 perspectives" in answer.stdout
    assert (tmp_path / "scan.png").read_bytes().startswith(b"\x89PNG")
    assert "not overwritten" in complaint(ptychoflow("simulate", "scan.h5", *SMALL))


def test_a_replay_cannot_be_simulated(ptychoflow: Command, tmp_path: Path) -> None:
    replay = ["--set", "source.kind=replay", "--set", "source.path=x.h5"]
    assert "nothing to simulate" in complaint(ptychoflow("simulate", "scan.h5", *replay))


def test_a_bug_keeps_its_traceback_in_a_file_and_prints_one_line(tmp_path: Path) -> None:
    code = "import sys, workflow.logs as logs; sys.excepthook = logs.report_bug; raise ZeroDivisionError('a bug')"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    (log,) = tmp_path.glob("ptychoflow-error-*.log")
    assert answer.returncode == 1
    assert answer.stderr == f"ptychoflow: unexpected ZeroDivisionError: a bug; the traceback is in {log}\n"
    assert "Traceback" in log.read_text()


IMPORTING = """
import builtins, os, signal, sys
from ptychoflow.__main__ import main
module = sys.argv.pop()
imported = builtins.__import__
def interrupted(name, *rest, **more):
    if name == module:
        builtins.__import__ = imported
        os.kill(os.getpid(), signal.SIGINT)
    return imported(name, *rest, **more)
builtins.__import__ = interrupted
main()
"""


@pytest.mark.parametrize(
    "module",
    [
        "ptychoflow.workflow.cli",
        "ptychoflow.workflow.app",
        "ptychoflow.workflow.launching.launcher",
    ],
)
def test_ctrl_c_in_the_first_second_ends_with_one_line(tmp_path: Path, module: str) -> None:
    command = [sys.executable, "-c", IMPORTING, "run", "--preset", "simulated", module]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (answer.returncode, answer.stderr) == (130, "ptychoflow: interrupted\n")
    assert list(tmp_path.iterdir()) == []


MADE_OTHERWISE = """
import os, signal
from pathlib import Path
from ptychoflow.__main__ import main
from ptychoflow.workflow import cli
from ptychoflow.workflow.launching import launcher
def check(_config):
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        ANSWER
launcher.check_source = check
main()
"""
"""A library makes an error of its own of Ctrl-C, or ignores it."""


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("raise RuntimeError('no schema') from None", "ptychoflow: interrupted\n"),
        ("pass", "ptychoflow: interrupted; the summary holds what was done until then\n"),
    ],
)
def test_ctrl_c_that_a_library_takes_for_itself_is_not_lost(tmp_path: Path, answer: str, said: str) -> None:
    command = [sys.executable, "-c", MADE_OTHERWISE.replace("ANSWER", answer), "run", "--preset", "simulated"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 130, ended.stderr
    assert ended.stderr.endswith(said)
    assert "Traceback" not in ended.stderr


def test_results_in_a_folder_that_cannot_be_written_are_refused_before_they_are_measured(ptychoflow: Command) -> None:
    with TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        with without_privileges():
            said = complaint(ptychoflow("bench", "train", "--json", Path(made) / "t.json"))
    assert said.startswith(f"cannot write {made}: Permission denied")


def test_results_on_an_output_that_goes_to_a_file_follow_what_was_printed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with out.open("w") as file:
        print("a table", file=file, flush=True)
        write_json({"a": 1}, Path(f"/dev/fd/{file.fileno()}"))
    assert out.read_text() == 'a table\n{\n  "a": 1\n}\n'
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(("met", "status"), [(True, 0), (False, 1)])
def test_benchmark_results_are_json_and_a_missed_target_fails(tmp_path: Path, met: bool, status: int) -> None:
    target = {"name": "ratio", "value": 0.4, "target": 0.5, "direction": "min", "met": met}
    assert tell({"results": [{"frames_per_s": 1.0}], "targets": [target]}, tmp_path / "out.json") == status
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["results"] == [{"frames_per_s": 1.0}]
    assert content["targets"] == [target]
    assert content["environment"]["versions"]["numpy"]
    assert content["command"]
