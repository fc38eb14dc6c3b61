"""The arrivals file: what was appended is read, in order and once, while it grows and after its writer was killed."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
from disk_calls import DiskCalls
from support import wait_until

from ptychoflow.acquisition.detectors import arrivals_file
from ptychoflow.acquisition.detectors.arrivals_file import ArrivalsReader, ArrivalsWriter, arrivals_files
from ptychoflow.streaming.errors import UserError

SOURCES = ["frames", "positions"]


def contents(messages) -> list[tuple[int, float, list[bytes]]]:
    return [(one.source, one.received_at_s, [bytes(part) for part in one.parts]) for one in messages]


def some_messages(count: int, seed: int = 0) -> list[tuple[int, float, list[bytes]]]:
    random = np.random.default_rng(seed)
    sizes = [random.integers(0, 5000, random.integers(0, 5)) for _ in range(count)]
    return [
        (int(random.integers(2)), 1e9 + place / 7, [random.bytes(int(size)) for size in parts])
        for place, parts in enumerate(sizes)
    ]


@pytest.mark.parametrize("window_bytes", [1 << 26, 4096])
def test_what_was_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window_bytes: int) -> None:
    monkeypatch.setattr(arrivals_file, "WINDOW_BYTES", window_bytes)
    messages = some_messages(300)
    writer = ArrivalsWriter(tmp_path, SOURCES)
    for place, message in enumerate(messages):
        if place % 100 == 0:
            writer.end_file()
        writer.append(*message)
    writer.end_file()
    assert [path.name for path in arrivals_files(tmp_path)] == [f"00000{number}.arrivals" for number in (1, 2, 3)]
    reader = ArrivalsReader(tmp_path)
    assert contents(reader.read()) == messages
    assert list(reader.read()) == []
    assert reader.sources == SOURCES
    assert all(path.stat().st_mode & 0o077 == 0 for path in arrivals_files(tmp_path))


def test_a_reader_follows_a_writer(tmp_path: Path) -> None:
    reader, messages, came = ArrivalsReader(tmp_path), some_messages(60), []
    assert list(reader.read()) == []
    writer = ArrivalsWriter(tmp_path, SOURCES)
    for place, message in enumerate(messages):
        writer.append(*message)
        came += contents(reader.read())
        assert came == messages[: place + 1]
        if place % 7 == 0:
            writer.end_file()
    reader.close()


def test_parts_outlive_the_reader(tmp_path: Path) -> None:
    writer = ArrivalsWriter(tmp_path, SOURCES)
    writer.append(0, 1.0, [b"kept"])
    writer.end_file()
    reader = ArrivalsReader(tmp_path)
    (message,) = reader.read()
    reader.close()
    assert bytes(message.parts[0]) == b"kept"


@pytest.mark.parametrize("missing", [1, 7, 40, 3000])
def test_half_a_message_is_left_out_and_the_next_file_goes_on(tmp_path: Path, missing: int) -> None:
    writer = ArrivalsWriter(tmp_path, SOURCES)
    writer.append(0, 1.0, [b"whole"])
    writer.append(1, 2.0, [b"x" * 5000])
    (path,) = arrivals_files(tmp_path)
    os.truncate(path, path.stat().st_size - missing)
    reader = ArrivalsReader(tmp_path)
    assert contents(reader.read()) == [(0, 1.0, [b"whole"])]
    later = ArrivalsWriter(tmp_path, SOURCES)
    later.append(0, 3.0, [b"later"])
    assert contents(reader.read()) == [(0, 3.0, [b"later"])]
    assert contents(ArrivalsReader(tmp_path).read()) == [(0, 1.0, [b"whole"]), (0, 3.0, [b"later"])]


@pytest.mark.parametrize("window_bytes", [1 << 26, 4096])
@pytest.mark.parametrize("kept", ["all", "no record", "the head of the last one", "nothing"])
def test_a_file_that_lost_its_end_in_a_power_cut_is_read_as_far_as_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: str, window_bytes: int
) -> None:
    """Its length is kept, with zeros where the last pages are not."""
    monkeypatch.setattr(arrivals_file, "WINDOW_BYTES", window_bytes)
    writer = ArrivalsWriter(tmp_path, SOURCES)
    writer.append(0, 1.0, [bytes([1]) * (4096 - 300)])
    writer.append(0, 2.0, [b"x"] * 5000)
    (path,) = arrivals_files(tmp_path)
    content = path.read_bytes()
    preamble, last = content.index(b"\n") + 1, content.rindex(arrivals_file.MAGIC)
    assert last + arrivals_file.HEAD.size < 4096
    left = {"all": len(content), "no record": preamble, "the head of the last one": 4096, "nothing": 0}[kept]
    path.write_bytes(content[:left] + bytes(len(content) - left + 100_000))
    reader = ArrivalsReader(tmp_path)
    numbers = [message.received_at_s for message in reader.read()]
    assert numbers == {"all": [1.0, 2.0], "the head of the last one": [1.0]}.get(kept, [])
    again = ArrivalsWriter(tmp_path, SOURCES)
    again.append(0, 3.0, [b"later"])
    assert contents(reader.read()) == [(0, 3.0, [b"later"])]
    with path.open("ab") as file:
        file.write(b"1")
    with pytest.raises(UserError, match="damaged" if left else "no arrivals file"):
        list(ArrivalsReader(tmp_path).read())


def _write_for_ever(folder: Path) -> None:
    writer = ArrivalsWriter(folder, SOURCES)
    number = 0
    while True:
        writer.append(0, float(number), [number.to_bytes(8, "big") * 500])
        number += 1


def test_a_killed_writer_leaves_whole_messages(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_write_for_ever, args=(tmp_path,))
    process.start()
    wait_until(lambda: any(path.stat().st_size > 1 << 22 for path in arrivals_files(tmp_path)), timeout_s=30.0)
    process.kill()
    process.join()
    numbers = [int.from_bytes(message.parts[0][:8], "big") for message in ArrivalsReader(tmp_path).read()]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > 1000


def test_a_full_disk_leaves_no_half_message_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = ArrivalsWriter(tmp_path, SOURCES)
    writer.append(0, 1.0, [b"first"])
    real = os.writev

    def half(file: int, pieces) -> int:
        real(file, [bytes(pieces[0])[:10]])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "writev", half)
        with pytest.raises(OSError, match="No space"):
            writer.append(0, 2.0, [b"lost"])
    writer.append(0, 3.0, [b"third"])
    assert [parts for _, _, parts in contents(ArrivalsReader(tmp_path).read())] == [[b"first"], [b"third"]]


def test_a_disk_that_is_full_when_a_file_begins_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written to what another has opened meanwhile under the number of the file before.

    And a reader that looks at any moment holds nothing that is taken back.
    """
    writer = ArrivalsWriter(tmp_path, SOURCES)
    writer.append(0, 1.0, [b"first"])
    writer.end_file()
    other = os.open(tmp_path / "other", os.O_WRONLY | os.O_CREAT)

    reader, read = ArrivalsReader(tmp_path), []

    def full(file: int, pieces) -> int:
        read.extend(contents(reader.read()))
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "writev", full)
        for _ in range(2):
            with pytest.raises(OSError, match="No space"):
                writer.append(0, 2.0, [b"lost"])
    writer.append(0, 3.0, [b"third"])
    writer.end_file()
    assert [parts for _, _, parts in (*read, *contents(reader.read()))] == [[b"first"], [b"third"]]
    os.close(other)
    assert (tmp_path / "other").stat().st_size == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000001.arrivals", "000002.arrivals", "other"]
    assert [parts for _, _, parts in contents(ArrivalsReader(tmp_path).read())] == [[b"first"], [b"third"]]


@pytest.mark.parametrize("kept", [0, 1, 40, 70])
def test_half_a_beginning_is_left_out(tmp_path: Path, kept: int) -> None:
    first, second = (ArrivalsWriter(tmp_path, SOURCES) for _ in range(2))
    first.append(0, 1.0, [b"lost"])
    os.truncate(arrivals_files(tmp_path)[0], kept)
    reader = ArrivalsReader(tmp_path)
    assert list(reader.read()) == []
    second.append(0, 2.0, [b"kept"])
    assert contents(reader.read()) == [(0, 2.0, [b"kept"])]


@pytest.mark.parametrize("at", [100, 110, 130])
def test_a_damaged_head_is_said(tmp_path: Path, at: int) -> None:
    writer = ArrivalsWriter(tmp_path, SOURCES)
    writer.append(0, 1.0, [b"y" * 8] * 3)
    writer.end_file()
    (path,) = arrivals_files(tmp_path)
    preamble = path.read_bytes().index(b"\n") + 1
    content = bytearray(path.read_bytes())
    content[preamble + at - 100] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        list(ArrivalsReader(tmp_path).read())


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "000001.arrivals").write_text('{"version": 7, "sources": [], "format": "ptychoflow arrivals"}\n')
    with pytest.raises(UserError, match="version 7"):
        list(ArrivalsReader(tmp_path).read())
    (tmp_path / "000001.arrivals").write_text("x" * 100_000)
    with pytest.raises(UserError, match="no arrivals file"):
        list(ArrivalsReader(tmp_path).read())


def test_the_name_of_a_new_file_is_on_the_disk_before_the_first_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = ArrivalsWriter(tmp_path / "arrivals", ["detector"])
    calls = DiskCalls(monkeypatch)
    writer.append(0, 1.0, [b"first"])
    assert calls.seen == [("rename", "000001.arrivals"), ("fsync", "arrivals")]
    writer.append(0, 2.0, [b"second"])
    assert len(calls.seen) == 2, "a name is there once and for all"
    writer.end_file()


def test_a_name_that_the_disk_did_not_confirm_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = ArrivalsWriter(tmp_path / "arrivals", SOURCES)
    with monkeypatch.context() as patched, pytest.raises(OSError, match="Input/output"):
        patched.setattr(os, "fsync", _fail)
        writer.append(0, 1.0, [b"first"])
    calls = DiskCalls(monkeypatch)
    writer.append(0, 1.0, [b"first"])
    assert calls.seen == [("fsync", "arrivals")]
    assert contents(ArrivalsReader(tmp_path / "arrivals").read()) == [(0, 1.0, [b"first"])]


def _fail(_: int) -> None:
    raise OSError(5, "Input/output error")


def test_nothing_is_written_behind_the_end_of_a_file_that_the_disk_did_not_confirm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, messages = ArrivalsWriter(tmp_path, SOURCES), some_messages(4)
    for message in messages[:2]:
        writer.append(*message)

    with monkeypatch.context() as patched, pytest.raises(OSError, match="Input/output"):
        patched.setattr(os, "fdatasync", _fail)
        writer.end_file()
    for message in messages[2:]:
        writer.append(*message)
    assert contents(ArrivalsReader(tmp_path).read()) == messages


@pytest.mark.parametrize("pages", [0, 3])
def test_half_a_record_that_its_writer_takes_back_is_not_taken_for_damage(tmp_path: Path, pages: int) -> None:
    writer, messages = ArrivalsWriter(tmp_path, SOURCES), some_messages(2)
    for message in messages:
        writer.append(*message)
    (path,) = arrivals_files(tmp_path)
    whole = path.stat().st_size
    writer.append(0, 3.0, [bytes(pages * 4096 + 100)])
    reader = ArrivalsReader(tmp_path)
    reading = reader.read()
    assert contents([next(reading)]) == messages[:1]
    os.truncate(path, whole)  # the disk is full
    assert contents(reading) == messages[1:]
    writer.append(0, 4.0, [b"next"])
    assert contents(reader.read()) == [(0, 4.0, [b"next"])]
