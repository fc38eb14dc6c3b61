"""Files that are whole whenever somebody looks, and on the disk before anything is said of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from disk_calls import DiskCalls
from support import wait_until

from ptychoflow.streaming.durable_file import durable_file, make_folder_durably, move_durably, write_durably

WRITER = """
import sys
from pathlib import Path
from ptychoflow.streaming.durable_file import write_durably
path, number = Path(sys.argv[1]), 0
while True:
    number += 1
    write_durably(path, f"{number:08d}" * 20_000)
"""


@pytest.mark.parametrize("moment", range(8))
def test_a_file_is_whole_whenever_its_writer_is_killed(tmp_path: Path, moment: int) -> None:
    path = tmp_path / "state.json"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)])
    wait_until(lambda: path.exists() and int(path.read_bytes()[:8]) >= 2 + moment, timeout_s=60)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    content = path.read_text()
    assert content == content[:8] * 20_000
    write_durably(path, b"the next writer")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["state.json"], "what was left behind is replaced"


def test_file_and_folder_are_on_the_disk_before_the_writer_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = DiskCalls(monkeypatch)
    write_durably(tmp_path / "a.json", "ä")
    assert calls.seen == [("fsync", "a.json.part"), ("rename", "a.json"), ("fsync", tmp_path.name)]
    assert (tmp_path / "a.json").read_bytes() == "ä".encode()


def test_a_folder_is_moved_with_all_that_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "new.part" / "deep").mkdir(parents=True)
    (tmp_path / "new.part" / "deep" / "file").write_bytes(b"1")
    calls = DiskCalls(monkeypatch)
    move_durably(tmp_path / "new.part", tmp_path / "new")
    before, after = calls.seen[:3], calls.seen[3:]
    assert sorted(before) == [("fsync", "deep"), ("fsync", "file"), ("fsync", "new.part")]
    assert after == [("rename", "new"), ("fsync", tmp_path.name)]
    assert (tmp_path / "new" / "deep" / "file").read_bytes() == b"1"


def test_a_folder_may_be_renamed_by_whoever_sees_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the ranks of a trainer do: the first one names the folder once it sees the files of all."""
    (tmp_path / "new.part").mkdir()
    replace = os.replace

    def seen_at_once(source: Path, target: Path) -> None:
        replace(source, target)
        (tmp_path / "new.part").rename(tmp_path / "new")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", seen_at_once)
        write_durably(tmp_path / "new.part" / "rank-1", b"1")
    assert (tmp_path / "new" / "rank-1").read_bytes() == b"1"


def test_folders_are_made_one_in_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = DiskCalls(monkeypatch)
    make_folder_durably(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    assert calls.seen == [("fsync", tmp_path.name), ("fsync", "a")]
    make_folder_durably(tmp_path / "a" / "b")
    assert len(calls.seen) == 2, "a folder that is there needs nothing"
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        make_folder_durably(tmp_path / "file")


def test_an_error_leaves_the_former_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_durably(path, b"before")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr(os, "fsync", full)
        write_durably(path, b"after")
    with pytest.raises(KeyboardInterrupt), durable_file(path) as unfinished:
        unfinished.write_bytes(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
