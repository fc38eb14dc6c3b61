"""The folder of a run: what it holds from the start, and when it is refused."""

import errno
import fcntl
import json
import os
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from disk_calls import DiskCalls

from ptychoflow.acquisition.detectors.settings import LiveSettings
from ptychoflow.streaming.errors import UserError
from ptychoflow.workflow.configuration.config import Config, load_config
from ptychoflow.workflow.json_results import write_json
from ptychoflow.workflow.launching.run_folder import (
    claimed,
    create_run_folder,
    describe_run,
    is_claimed,
    remove_what_a_resume_needs,
)


def config_in(directory: Path, name: str = "first") -> Config:
    return load_config("simulated", assignments=[f"run.directory={directory}", f"run.name={name}", "run.seed=7"])


def test_a_new_folder_holds_the_resolved_configuration_and_the_environment(tmp_path: Path) -> None:
    folder = create_run_folder(config_in(tmp_path / "deep" / "runs"))
    assert folder.path == tmp_path / "deep" / "runs" / "first"
    resolved = tomllib.loads(folder.config.read_text())
    assert resolved["run"]["seed"] == 7
    assert resolved["trainer"]["batch_size"] > 0, "defaults are written out too"
    environment = json.loads(folder.environment.read_text())
    assert environment["seed"] == 7
    assert environment["host"]
    assert environment["versions"]["torch"]
    assert environment["started_at"]
    assert "git_revision" in environment


def test_the_name_of_a_new_folder_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = DiskCalls(monkeypatch)
    create_run_folder(config_in(tmp_path))
    assert ("fsync", tmp_path.name) in calls.seen


@pytest.mark.parametrize("kept", [True, False])
def test_arrivals_of_a_run_that_has_ended_well_are_kept_unless_set_otherwise(tmp_path: Path, kept: bool) -> None:
    source = {
        "kind": "live",
        "frames": {"kind": "dectris-v2", "host": "127.0.0.1"},
        "positions": {"kind": "position-sender"},
        "join": {"first_frame": 0, "first_sample": 0, "samples_per_frame": 1},
        "keep_arrivals": kept,
    }
    config = config_in(tmp_path)
    config = config.model_copy(update={"source": LiveSettings.model_validate(source)})
    folder = create_run_folder(config)
    for path in (folder.spool, folder.arrivals):
        path.mkdir()
        (path / "file").touch()
    remove_what_a_resume_needs(folder, config)
    assert not folder.spool.exists()
    assert folder.arrivals.exists() == kept


def test_an_existing_run_is_never_touched(tmp_path: Path) -> None:
    folder = create_run_folder(config_in(tmp_path))
    before = folder.config.read_bytes()
    with pytest.raises(UserError, match="exists already; choose another --name"):
        create_run_folder(config_in(tmp_path))
    assert folder.config.read_bytes() == before


def test_a_folder_that_cannot_be_claimed_or_described_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_in(tmp_path)
    folder = create_run_folder(config)
    folder.environment.unlink()
    folder.environment.mkdir()
    with pytest.raises(
        UserError, match=r"cannot write the run folder .*first: .*; a folder is in its place: remove it"
    ):
        describe_run(config, folder)
    folder.lock.mkdir()
    with pytest.raises(UserError, match=r"cannot write .*\.lock: "), claimed(folder):
        pass
    folder.lock.rmdir()

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(UserError, match=r"cannot lock .*\.lock: No locks available; .*run\.directory"), claimed(folder):
        pass
    assert not is_claimed(folder), "nobody runs where nothing can be locked"


def test_what_happens_within_a_claim_is_not_taken_for_a_disk_that_fails(tmp_path: Path) -> None:
    folder = create_run_folder(config_in(tmp_path))
    with pytest.raises(ConnectionResetError), claimed(folder):
        raise ConnectionResetError


def test_who_looks_whether_a_folder_is_claimed_asks_for_a_shared_lock(tmp_path: Path) -> None:
    """Over NFS, one for oneself alone cannot be had on a file that is open for reading."""
    folder = create_run_folder(config_in(tmp_path))
    with folder.lock.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        assert not is_claimed(folder)
        fcntl.flock(other, fcntl.LOCK_EX)
        assert is_claimed(folder)


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file"):
        create_run_folder(config_in(tmp_path / "file"))
    with pytest.raises(UserError, match="is a file"):
        create_run_folder(config_in(tmp_path, name="file"))


def test_a_place_that_cannot_be_written_is_told() -> None:
    with pytest.raises(UserError, match=r"cannot write the run folder /proc/first.*run\.directory"):
        create_run_folder(config_in(Path("/proc")))


def test_figures_that_json_does_not_know_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json({"value": float("nan")}, tmp_path / "out.json")


def test_a_pipe_gets_json_too(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as executor:
        reader = executor.submit(pipe.read_text)
        write_json({"value": 1}, pipe)
        assert json.loads(reader.result(timeout=30)) == {"value": 1}
    assert list(tmp_path.iterdir()) == [pipe]
