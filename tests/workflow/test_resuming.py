"""Which runs can be resumed, and with which configuration."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from signal import SIGKILL

import pytest
from checkpoint_files import save

from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.events import Part
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.trainer.checkpoints.checkpoint import MARKER
from ptychoflow.workflow.commands.view import view
from ptychoflow.workflow.configuration.config import load_config
from ptychoflow.workflow.exit_status import FAILED_STATUS
from ptychoflow.workflow.json_results import write_json
from ptychoflow.workflow.launching import launcher
from ptychoflow.workflow.launching.resuming import resumed_config
from ptychoflow.workflow.launching.run_folder import claimed, create_run_folder, is_claimed
from ptychoflow.workflow.launching.supervision import PartCommand


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """Of a run that was killed."""
    return create_run_folder(
        load_config("simulated", assignments=[f"run.directory={tmp_path}", "run.name=killed", "network.frames_port=0"])
    )


def test_a_run_goes_on_with_its_own_configuration_wherever_its_folder_is_now(folder: RunFolder, tmp_path: Path) -> None:
    moved = folder.path.rename(tmp_path / "moved")
    config = resumed_config(moved, options={"trainer": {"ranks": 2}})
    before = load_config("simulated")
    assert config.run.context().directory == moved
    assert config.trainer.ranks == 2
    assert (config.source, config.trainer.model) == (before.source, before.trainer.model)


def test_a_folder_without_a_run_and_a_run_that_has_ended_well_are_refused(folder: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not the folder of a run"):
        resumed_config(tmp_path)
    write_json({"ended_well": False}, folder.summary)
    resumed_config(folder.path)
    write_json({"ended_well": True}, folder.summary)
    with pytest.raises(UserError, match="has ended well: there is nothing to resume"):
        resumed_config(folder.path)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"ended_well": tr', b'{"ended_well": 1}', b"\xff"])
def test_a_summary_that_cannot_be_read_keeps_no_run_from_being_resumed(
    folder: RunFolder, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    folder.summary.write_bytes(content)
    assert resumed_config(folder.path).run.context().folder.path == folder.path
    assert f"{folder.summary} cannot be read" in caplog.text


@pytest.mark.parametrize("key", ["trainer.model.width=3", "source.seed=99", "run.seed=7", "retrieval.epochs=1"])
def test_what_a_run_is_made_of_cannot_be_changed(folder: RunFolder, key: str) -> None:
    with pytest.raises(UserError, match="cannot be changed in a run that is resumed; start a new run instead"):
        resumed_config(folder.path, [key])
    resumed_config(folder.path, ["trainer.finish_s=1.0"])


def test_ports_that_are_taken_are_chosen_anew(folder: RunFolder) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        keys = [f"network.weights_port={port}", f"dashboard.port={port}"]
        config = resumed_config(folder.path, keys)
    assert (config.network.weights_port, config.dashboard.port) == (0, 0)


def test_a_checkpoint_of_another_version_is_told_before_anything_starts(folder: RunFolder) -> None:
    path = save(folder.checkpoints, step=3, common={}, shard={}, keep=1)
    (path / MARKER).write_text('{"format": 0}')
    with pytest.raises(UserError, match="was not written by this version"):
        resumed_config(folder.path)


def test_two_cannot_run_in_one_folder_even_after_the_first_launcher_was_killed(folder: RunFolder) -> None:
    with claimed(folder) as claim:
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(claim,))
        with pytest.raises(UserError, match="is still going on"), claimed(folder, patience_s=0.0):
            pass
    with pytest.raises(UserError, match="is still going on"), claimed(folder, patience_s=0.0):
        pass
    child.communicate(os.linesep.encode())
    with claimed(folder, patience_s=5.0):
        pass
    assert not is_claimed(folder)


def test_the_page_of_a_run_that_goes_on_is_its_own(folder: RunFolder) -> None:
    assert not is_claimed(folder)
    with claimed(folder):
        assert is_claimed(folder)
        with pytest.raises(UserError, match="is still going on: open its live page"):
            view(folder.path)


@pytest.mark.parametrize("key", ["name", "directory"])
def test_another_folder_for_a_run_that_is_resumed_is_refused(folder: RunFolder, key: str) -> None:
    with pytest.raises(UserError, match=rf"^run\.{key}: a resumed run stays in its folder; move "):
        resumed_config(folder.path, [f"run.{key}=other"])


FAILING = "raise SystemExit(2)"
TRAINING = """
import sys
from contextlib import closing
from pathlib import Path
from ptychoflow.streaming.events import Part, TrainingStep
from ptychoflow.streaming.telemetry import TelemetrySender
from ptychoflow.workflow.configuration.config import load_config
with closing(TelemetrySender(load_config(file=Path(sys.argv[1])).network, part=Part.TRAINER)) as sender:
    sender.send(TrainingStep(9, 0.1, 0.1, 0.0, 1e-3, 23, 0, 210.4))
raise SystemExit(2)
"""


@pytest.mark.parametrize(("trainer", "kept"), [(FAILING, False), (TRAINING, True)])
def test_what_was_set_is_kept_once_training_goes_on(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, trainer: str, kept: bool
) -> None:
    before = folder.config.read_text()

    def command(part: Part, _folder: RunFolder, *_: object, **__: object) -> PartCommand:
        return PartCommand(part, [sys.executable, "-c", trainer, str(folder.config)], folder.log(part))

    monkeypatch.setattr(launcher, "part_command", command)
    monkeypatch.setattr(launcher, "START_ORDER", (Part.TRAINER,))
    monkeypatch.setattr(launcher, "check_source", lambda _: None)
    changed = resumed_config(folder.path, ["trainer.finish_s=7.5"], options={"dashboard": {"enabled": False}})
    assert launcher.relaunch(changed) == FAILED_STATUS
    assert ("finish_s = 7.5" in folder.config.read_text()) is kept
    assert (folder.config.read_text() == before) is not kept
    assert not folder.earlier_config.exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from ptychoflow.workflow.launching import launcher
from ptychoflow.workflow.launching.resuming import resumed_config
launcher.check_source = lambda _: None
launcher._commands = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
launcher.relaunch(resumed_config(Path(sys.argv[1]), ["trainer.finish_s=7.5", "dashboard.enabled=false"]))
"""


def test_what_was_set_is_not_kept_of_a_launcher_that_was_killed(folder: RunFolder) -> None:
    before = load_config(file=folder.config).trainer
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", KILLED, str(folder.path)], check=False).returncode == -SIGKILL
        assert resumed_config(folder.path).trainer == before


def test_what_is_refused_is_not_kept(folder: RunFolder) -> None:
    before = folder.config.read_text()
    with pytest.raises(UserError, match="larger than capacity 4"):
        launcher.relaunch(resumed_config(folder.path, ["trainer.buffer.capacity=4"]))
    assert folder.config.read_text() == before
