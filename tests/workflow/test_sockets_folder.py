"""The folder over whose files the parts of a run talk: each run has its own, and one that a user names stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from support import wait_until

from ptychoflow.streaming.private_folder import private_folder
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.workflow.configuration.config import AnyConfig, load_config
from ptychoflow.workflow.launching import launcher
from ptychoflow.workflow.launching.resuming import resumed_config
from ptychoflow.workflow.launching.run_folder import create_run_folder


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[AnyConfig]:
    """The configurations with which runs were begun; nothing runs."""
    configs: list[AnyConfig] = []
    monkeypatch.setattr(launcher, "_run", lambda config, *_: configs.append(config) or 0)
    return configs


@pytest.fixture
def owned(tmp_path: Path) -> Path:
    """A folder of a user's own, with something in it, named as ours may be."""
    folder = tmp_path / "ptychoflow-beamline.made"
    folder.mkdir(mode=0o700)
    (folder / "notes").touch()
    return folder


def begun(directory: Path, *assignments: str, file: Path | None = None, name: str = "first") -> AnyConfig:
    given = ["dashboard.enabled=false", f"run.directory={directory}", f"run.name={name}", *assignments]
    return load_config("simulated", file, given)


@pytest.mark.parametrize("still_there", [True, False])
def test_a_run_with_the_configuration_of_another_talks_over_a_folder_of_its_own(
    tmp_path: Path, ran: list[AnyConfig], still_there: bool
) -> None:
    with private_folder() as folder:
        first = create_run_folder(begun(tmp_path, f"network.sockets_dir={folder}"))
        if still_there:
            launcher.launch(begun(tmp_path, file=first.config, name="again"))
    if not still_there:
        launcher.launch(begun(tmp_path, file=first.config, name="again"))
    (config,) = ran
    assert config.network.sockets_dir not in (None, folder)
    assert config.network.frames_port > 0


def test_a_folder_that_a_user_names_is_used_again_and_never_removed(
    tmp_path: Path, ran: list[AnyConfig], owned: Path
) -> None:
    launcher.launch(begun(tmp_path, f"network.sockets_dir={owned}"))
    launcher.relaunch(resumed_config(tmp_path / "first"))
    assert [config.network.sockets_dir for config in ran] == [owned, owned]
    assert (owned / "notes").exists()


def test_a_folder_that_a_user_has_yet_to_make_is_not_taken_for_one_of_a_run(
    tmp_path: Path, ran: list[AnyConfig]
) -> None:
    named = tmp_path / "ptychoflow-beamline"
    launcher.launch(begun(tmp_path, f"network.sockets_dir={named}"))
    assert ran[0].network.sockets_dir == named


IMPORTS_S = 100.0
"""What the command may take to be loaded beside others that use the processors."""
CHECKING = """
import sys, time
from pathlib import Path
from ptychoflow.__main__ import main
from ptychoflow.workflow.launching import launcher
checking = Path(sys.argv.pop())
def check(_config):
    checking.touch()
    time.sleep(600)
launcher.check_source = check
main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_run_that_is_ended_while_its_source_is_checked_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    given = ["run", "--preset", "simulated", "--set", f"run.directory={tmp_path / 'runs'}", str(tmp_path / "checking")]
    with tempfile.TemporaryDirectory(prefix="s-") as place:
        launcher = subprocess.Popen(
            [sys.executable, "-c", CHECKING, *given],
            env=os.environ | {"XDG_RUNTIME_DIR": place},
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            wait_until((tmp_path / "checking").exists, timeout_s=IMPORTS_S)
            assert len(list(Path(place).iterdir())) == 1
            launcher.send_signal(number)
            _, said = launcher.communicate(timeout=IMPORTS_S)
        finally:
            launcher.kill()
        assert launcher.returncode == 130
        assert said == "ptychoflow: interrupted\n"
        assert list(Path(place).iterdir()) == []
    assert not (tmp_path / "runs").exists()


def test_what_a_killed_run_has_left_is_removed_when_it_goes_on(tmp_path: Path, ran: list[AnyConfig]) -> None:
    with private_folder() as folder:
        (folder / "1").touch()
        run = create_run_folder(begun(tmp_path, f"network.sockets_dir={folder}"))
        launcher.relaunch(resumed_config(run.path))
        assert not folder.exists()
    assert ran[0].network.sockets_dir not in (None, folder)
    assert RunFolder(tmp_path / "first").config.is_file()
