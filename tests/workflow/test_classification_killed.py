"""`ptychoflow experiment classification` with ranks that are killed, and as a whole that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from image_folders import DIGITS_PX, write_digits
from support import wait_until

from ptychoflow.workflow.cli import run_command_line
from ptychoflow.workflow.exit_status import USER_ERROR_STATUS
from ptychoflow.workflow.experiments.runner import RANK_MODULE
from ptychoflow.workflow.launching.torchrun import LOCAL_TORCHRUN, RUN_VARIABLE

EPOCHS = 8
CONFIG = f"""
[images]
tasks = 2
channels = 1
stored_px = {DIGITS_PX}
image_px = {DIGITS_PX}
least_crop_area = 0.8
workers = 0
[training]
batch_size = 10
epochs = {EPOCHS}
learning_rate = 0.02
buffer_share = 0.5
device = "cpu"
threads = 1
[training.model]
family = "small"
width = 8
[training.schedule]
warm_up_epochs = 0.5
decays = [[6, 0.1]]
[training.buffer]
representatives = 10
candidates = 10
transport = "tcp"
[experiment]
methods = ["incremental", "er"]
seeds = 1
ranks = 2
"""


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("images") / "digits", classes=4, train=80, val=40)


def arguments(digits: Path, folder: Path, *more: str) -> list[str]:
    (folder / "config.toml").write_text(CONFIG)
    options = ["--config", str(folder / "config.toml"), "--json", str(folder / "found.json")]
    return ["experiment", "classification", str(digits), *options, *more]


def start(command: Sequence[str]) -> subprocess.Popen[str]:
    whole = [sys.executable, "-m", "ptychoflow", *command]
    return subprocess.Popen(whole, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def results(folder: Path) -> dict[str, Any]:
    """Return the only run of each method."""
    runs: dict[str, Any] = json.loads((folder / "found.json").read_text())["strategies"]
    assert not list(folder.glob("found-checkpoints*")), "checkpoints are removed once their training is done"
    return {name: run for name, (run,) in runs.items()}


def wait_for_checkpoint(folder: Path) -> None:
    wait_until(lambda: any(folder.glob("found-checkpoints/*/checkpoints/step-*/complete.json")), timeout_s=120)


def ranks_of(parent: psutil.Process) -> list[int]:
    """Return the processes of the ranks, in their order."""
    return sorted(child.pid for child in parent.children(recursive=True) if is_rank(child))


def is_rank(process: psutil.Process) -> bool:
    try:
        command = process.cmdline()
    except psutil.Error:  # it has just ended
        return False
    return RANK_MODULE in command and LOCAL_TORCHRUN not in command


@pytest.fixture(scope="module")
def undisturbed(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results where nobody kills; the exit status says only whether targets were met, one of which is of time."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run = start(arguments(digits, folder))
    _, errors = run.communicate(timeout=200)
    found = results(folder)
    assert set(found) == {"incremental", "er"}, errors
    assert (folder / "found-epochs.png").stat().st_size > 1000
    return found


def test_a_killed_rank_costs_no_more_than_an_epoch(
    digits: Path, undisturbed: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Ranks, one of which is killed, find what those find that nobody kills."""

    def kill() -> None:
        wait_for_checkpoint(tmp_path)
        os.kill(ranks_of(psutil.Process())[-1], signal.SIGKILL)

    with ThreadPoolExecutor(1) as executor:
        killer = executor.submit(kill)
        run_command_line(arguments(digits, tmp_path))
        killer.result()
    assert "rank 1 of the experiment died with status -9; starting the ranks again" in caplog.text
    found = results(tmp_path)
    first, expected = found["incremental"], undisturbed["incremental"]
    assert (first["ranks_of_starts"], expected["ranks_of_starts"]) == ([2, 2], [2])
    assert first["accuracy_top1"] == expected["accuracy_top1"]
    assert (first["steps"], first["samples"]) == (expected["steps"], expected["samples"])
    assert found["er"]["ranks_of_starts"] == [2]
    assert found["er"]["steps"] == undisturbed["er"]["steps"]


def test_an_experiment_that_was_killed_as_a_whole_goes_on_on_another_number_of_ranks(
    digits: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    command = arguments(digits, tmp_path, "--set", 'experiment.methods=["er","incremental"]')
    killed = start(command)
    wait_for_checkpoint(tmp_path)
    ranks = ranks_of(psutil.Process(killed.pid))
    killed.kill()
    killed.communicate(timeout=60)
    assert len(ranks) == 2
    wait_until(lambda: not any(psutil.pid_exists(rank) for rank in ranks), timeout_s=60)
    assert json.loads((tmp_path / "found.json").read_text())["strategies"] == {}, "the first training was under way"

    run_command_line([*command, "--resume", "--set", "experiment.ranks=1"])
    found = results(tmp_path)
    er, incremental = found["er"], found["incremental"]
    assert (er["ranks_of_starts"], incremental["ranks_of_starts"]) == ([2, 1], [1])
    assert er["buffer"]["size"] == er["buffer"]["capacity"] == 160
    assert len(er["epochs"]) == 2 * EPOCHS
    seconds = [epoch["seconds"] for epoch in er["epochs"]]
    assert seconds == sorted(seconds)
    assert incremental["accuracy_top1"][1][0] < 0.2
    assert er["accuracy_top1"][1][0] > 0.5, "what was stored before came along"


def test_without_a_file_of_results_a_killed_rank_ends_the_experiment(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.toml").write_text(CONFIG)
    changes = ("--set", "experiment.ranks=1", "--set", "training.epochs=10000")

    def kill() -> None:
        wait_until(lambda: len(ranks_of(psutil.Process())) == 1, timeout_s=120)
        os.kill(ranks_of(psutil.Process())[0], signal.SIGKILL)

    with ThreadPoolExecutor(1) as executor:
        killer = executor.submit(kill)
        command = ["experiment", "classification", str(digits), "--config", str(tmp_path / "config.toml"), *changes]
        assert run_command_line(command) == USER_ERROR_STATUS
        killer.result()
    assert "died with status -9; with --json FILE it would go on from a checkpoint" in capsys.readouterr().err


def test_an_experiment_is_not_started_by_torchrun(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUN_VARIABLE, "none")
    assert run_command_line(arguments(digits, tmp_path)) == USER_ERROR_STATUS
    assert "starts torchrun by itself: start it without" in capsys.readouterr().err
