"""Growing HDF5 files: written by another process, read while they grow, never outside of their folder."""

from __future__ import annotations

import fcntl
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import pytest
from growing_files import SHAPE_PX, Draining, Writer, settings, write_whole
from support import wait_until

from ptychoflow.acquisition.detectors.arrivals import (
    FrameCame,
    Malformed,
    PositionsBegan,
    PositionsCame,
    PositionsEnded,
    SeriesBegan,
    SeriesEnded,
)
from ptychoflow.acquisition.detectors.hdf5_swmr import followed_file
from ptychoflow.acquisition.detectors.hdf5_swmr.connection import Hdf5SwmrConnection
from ptychoflow.acquisition.detectors.hdf5_swmr.decoder import Hdf5SwmrDecoder
from ptychoflow.acquisition.detectors.hdf5_swmr.files import Stage, stage_of
from ptychoflow.acquisition.scan import Ending


def test_a_file_is_read_while_it_grows(draining: Draining, tmp_path: Path, writer: Writer) -> None:
    with draining(settings(tmp_path)) as drained:
        writer("open", "a.h5")
        writer("frames", 3)
        wait_until(lambda: len(drained.of(FrameCame)) == 3)
        assert drained.positions_m("a.h5 (1)") == {}
        writer("positions", 5)
        wait_until(lambda: len(drained.positions_m("a.h5 (1)")) == 5)
        assert drained.frames("a.h5") == [0, 1, 2]
        assert not drained.of(SeriesEnded)
        writer("frames", 5)
        writer("close")
        wait_until(lambda: bool(drained.of(SeriesEnded)))
    assert drained.frames("a.h5") == [0, 1, 2, 3, 4]
    # the writer says (x, y) in micrometres: x = index, y = -2 × index
    assert drained.positions_m("a.h5 (1)") == {index: (-2 * index * 1e-6, index * 1e-6) for index in range(5)}
    (began,) = drained.of(SeriesBegan)
    assert began.header.shape_px == SHAPE_PX
    assert drained.of(PositionsBegan) == [PositionsBegan("a.h5 (1)", series="a.h5")]
    assert drained.of(PositionsEnded) == [PositionsEnded("a.h5 (1)", Ending.COMPLETE)]
    assert drained.of(SeriesEnded) == [SeriesEnded("a.h5", Ending.COMPLETE)]
    begins = [Hdf5SwmrConnection.begins_series(parts) for parts in drained.messages]
    assert begins == [False, True] + [False] * (len(begins) - 2)


def test_files_follow_one_another_and_one_whose_writer_died_is_over(
    draining: Draining, tmp_path: Path, writer: Writer
) -> None:
    with draining(settings(tmp_path)) as drained:
        writer("open", "first.h5")
        writer("frames", 4)
        wait_until(lambda: len(drained.of(FrameCame)) == 4)
        writer.kill()
        another = Writer(tmp_path)
        another("open", "a_second.h5")
        another("frames", 2)
        another("close")
        wait_until(lambda: len(drained.of(SeriesEnded)) == 2)
        another.kill()
    assert drained.of(SeriesEnded) == [
        SeriesEnded("first.h5", Ending.ABORTED),
        SeriesEnded("a_second.h5", Ending.COMPLETE),
    ]
    assert drained.frames("first.h5") == [0, 1, 2, 3]
    assert drained.frames("a_second.h5") == [0, 1]


def test_a_receiver_that_comes_late_or_again_reads_a_growing_file_from_its_beginning(
    draining: Draining, tmp_path: Path, writer: Writer
) -> None:
    write_whole(tmp_path / "earlier.h5")
    os.utime(tmp_path / "earlier.h5", (0, 0))
    writer("open", "now.h5")
    writer("frames", 3)
    with draining(settings(tmp_path)) as drained:
        wait_until(lambda: len(drained.of(FrameCame)) == 3)
    writer("frames", 6)
    with draining(settings(tmp_path)) as again:
        wait_until(lambda: len(again.of(FrameCame)) == 6)
    assert again.frames("now.h5") == list(range(6))
    assert {arrival.series for arrival in again.of(FrameCame)} == {"now.h5"}
    decoder = Hdf5SwmrDecoder(settings(tmp_path))
    both = [arrival for parts in drained.messages + again.messages for arrival in decoder.decode(parts)]
    assert sum(isinstance(arrival, PositionsBegan) for arrival in both) == 1


def test_what_was_written_meanwhile_is_told_once_a_receiver_is_back(
    draining: Draining, tmp_path: Path, writer: Writer
) -> None:
    """The rest of the file that grew, and files that came and were closed; neither those before nor those told."""
    write_whole(tmp_path / "earlier.h5")
    os.utime(tmp_path / "earlier.h5", (0, 0))
    with draining(settings(tmp_path)) as first:
        writer("open", "told.h5")
        writer("frames", 2)
        writer("close")
        wait_until(lambda: bool(first.of(SeriesEnded)))
        writer("open", "grows.h5")
        writer("frames", 3)
        writer("positions", 2)
        wait_until(lambda: len(first.of(FrameCame)) == 5 and len(first.positions_m("grows.h5 (2)")) == 2)
    writer("frames", 6)
    writer("positions", 6)
    writer("close")
    writer("open", "unseen.h5")
    writer("frames", 4)
    writer("close")
    damaged = [[], [b""], [b"\xc1"]]
    with draining(settings(tmp_path), [*first.messages, *damaged]) as second:
        wait_until(lambda: len(second.of(SeriesEnded)) == 2)
    first.messages += second.messages
    assert [(arrival.series, arrival.number) for arrival in first.of(FrameCame)] == [
        (name, number) for name, count in (("told.h5", 2), ("grows.h5", 6), ("unseen.h5", 4)) for number in range(count)
    ]
    assert len([n for came in first.of(PositionsCame) if came.run == "grows.h5 (2)" for n in came.numbers]) == 6
    assert [arrival.series for arrival in first.of(SeriesBegan)] == ["told.h5", "grows.h5", "unseen.h5"]
    assert {arrival.ending for arrival in first.of(SeriesEnded)} == {Ending.COMPLETE}
    assert not first.of(Malformed)


def record_looks(monkeypatch: pytest.MonkeyPatch, path: Path) -> Counter[bool]:
    """Count how often the folder is looked at while a file is there, or is not."""
    look, looks = Hdf5SwmrConnection._look, Counter[bool]()

    def counted(connection: Hdf5SwmrConnection) -> bool:
        there = path.exists()
        waits = look(connection)
        looks[there] += 1
        return waits

    monkeypatch.setattr(Hdf5SwmrConnection, "_look", counted)
    return looks


def test_a_file_of_a_name_that_was_there_before_is_another_series_with_positions_of_its_own(
    draining: Draining, tmp_path: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, its_settings = record_looks(monkeypatch, tmp_path / "a.h5"), settings(tmp_path)
    with draining(its_settings) as first:
        for count in (2, 3):
            writer("open", "a.h5")
            writer("frames", count)
            writer("positions", count)
            writer("close")
            wait_until(lambda count=count: len(first.of(SeriesEnded)) == count - 1)
            (tmp_path / "a.h5").rename(tmp_path / "moved away")
            looks.clear()
            wait_until(lambda: looks[False] > 0)
        writer("open", "a.h5")
        writer("frames", 1)
        writer("positions", 1)
        wait_until(lambda: len(first.of(FrameCame)) == 6)
    writer("frames", 4)
    writer("positions", 4)
    writer("close")
    with draining(its_settings, first.messages) as second:
        wait_until(lambda: bool(second.of(SeriesEnded)))
    first.messages += second.messages
    assert first.placed() == [[0, 1], [0, 1, 2], [0, 1, 2, 3]]


@pytest.mark.parametrize("back", ["while another is read", "when it is its turn", "after its turn"])
def test_a_file_that_is_moved_away_while_it_waits_and_is_back_is_taken_once(
    draining: Draining, tmp_path: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch, back: str
) -> None:
    looks = record_looks(monkeypatch, tmp_path / "c.h5")
    look = Hdf5SwmrConnection._look

    def look_and_bring_back(connection: Hdf5SwmrConnection) -> bool:
        waits = look(connection)
        if connection._waiting == ["c.h5"] and back == "when it is its turn" and not (tmp_path / "c.h5").exists():
            write_whole(tmp_path / "c.h5")
        return waits

    monkeypatch.setattr(Hdf5SwmrConnection, "_look", look_and_bring_back)
    writer("open", "a.h5")
    for name in ("b.h5", "c.h5"):
        write_whole(tmp_path / name)
    with draining(settings(tmp_path, settle_s=1.0, quiet_s=60.0, earlier_files=True)) as drained:
        wait_until(lambda: len(drained.of(SeriesBegan)) == 1)
        (tmp_path / "c.h5").unlink()
        writer("close")
        wait_until(lambda: looks[False] > 0)
        if back != "when it is its turn":
            wait_until(lambda: back != "after its turn" or bool(drained.of(Malformed)))
            write_whole(tmp_path / "c.h5")
        wait_until(lambda: len(drained.of(SeriesEnded)) == 3)
        write_whole(tmp_path / "d.h5")
        wait_until(lambda: len(drained.of(SeriesEnded)) == 4)
    assert [arrival.series for arrival in drained.of(SeriesBegan)] == ["a.h5", "b.h5", "c.h5", "d.h5"]


def folder_with_an_old_file(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    write_whole(folder / "a.h5")
    os.utime(folder / "a.h5", (1e9, 1e9))
    return folder


def unmount(folder: Path) -> None:
    """Put an empty folder in its place."""
    folder.rename(folder.with_suffix(".away"))
    folder.mkdir()


def mount(folder: Path) -> None:
    """Undo `unmount`."""
    folder.rmdir()
    folder.with_suffix(".away").rename(folder)


@pytest.mark.parametrize("earlier_files", [False, True])
def test_files_that_are_moved_away_and_back_after_their_turn_are_not_taken_again(
    draining: Draining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier_files: bool
) -> None:
    """As where a folder is unmounted for a while: the empty one below is in its place."""
    folder = folder_with_an_old_file(tmp_path)
    looks = record_looks(monkeypatch, folder / "a.h5")
    with draining(settings(folder, earlier_files=earlier_files)) as drained:
        write_whole(folder / "b.h5")
        wait_until(lambda: len(drained.of(SeriesEnded)) == 1 + earlier_files)
        there = looks[True]
        wait_until(lambda: looks[True] > there + 1)
        unmount(folder)
        wait_until(lambda: looks[False] > 1)
        mount(folder)
        write_whole(folder / "c.h5")
        wait_until(lambda: "c.h5" in [ended.series for ended in drained.of(SeriesEnded)])
        (folder / "b.h5").unlink()
        before = looks.total()
        wait_until(lambda: looks.total() > before + 1)
        write_whole(folder / "b.h5")
        wait_until(lambda: drained.of(SeriesEnded)[-1].series == "b.h5")
    expected = ["a.h5"] if earlier_files else []
    assert [began.series for began in drained.of(SeriesBegan)] == [*expected, "b.h5", "c.h5", "b.h5"]


def test_a_file_that_was_moved_away_unread_and_is_back_is_taken_by_the_next_receiver(
    draining: Draining, tmp_path: Path, writer: Writer
) -> None:
    folder, its_settings = tmp_path, settings(tmp_path, settle_s=1.0, quiet_s=60.0, earlier_files=True)
    writer("open", "a.h5")
    write_whole(folder / "b.h5")
    with draining(its_settings) as first:
        wait_until(lambda: len(first.of(SeriesBegan)) == 1)
        (folder / "b.h5").rename(folder / "b.away")
        writer("close")
        wait_until(lambda: len(first.of(Malformed)) == 1)
    (folder / "b.away").rename(folder / "b.h5")
    with draining(its_settings, first.messages) as second:
        wait_until(lambda: len(second.of(SeriesEnded)) == 1)
    assert second.frames("b.h5") == [0, 1, 2]
    assert len(second.of(SeriesBegan)) == 1


@pytest.mark.parametrize("earlier_files", [False, True])
def test_files_of_a_folder_that_is_mounted_after_a_receiver_is_back_are_not_taken_again(
    draining: Draining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier_files: bool
) -> None:
    folder = folder_with_an_old_file(tmp_path)
    its_settings = settings(folder, earlier_files=earlier_files)
    with draining(its_settings) as first:
        write_whole(folder / "b.h5")
        wait_until(lambda: len(first.of(SeriesEnded)) == 1 + earlier_files)
    unmount(folder)
    looks = record_looks(monkeypatch, folder / "a.h5")
    with draining(its_settings, first.messages) as second:
        wait_until(lambda: looks[False] > 1)
        mount(folder)
        write_whole(folder / "c.h5")
        wait_until(lambda: "c.h5" in [ended.series for ended in second.of(SeriesEnded)])
    assert [began.series for began in second.of(SeriesBegan)] == ["c.h5"]


def test_a_file_of_a_name_that_was_told_is_taken_in_a_folder_that_was_emptied(
    draining: Draining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with draining(settings(tmp_path)) as first:
        write_whole(tmp_path / "a.h5")
        wait_until(lambda: len(first.of(SeriesEnded)) == 1)
    (tmp_path / "a.h5").unlink()
    looks = record_looks(monkeypatch, tmp_path / "a.h5")
    with draining(settings(tmp_path), first.messages) as second:
        wait_until(lambda: looks[False] > 1)
        write_whole(tmp_path / "a.h5")
        wait_until(lambda: len(second.of(SeriesEnded)) == 1)
    assert second.frames("a.h5") == [0, 1, 2]


@pytest.mark.parametrize("others", [False, True])
def test_a_file_that_was_moved_away_half_read_is_over_for_the_next_receiver_and_its_name_free(
    draining: Draining, tmp_path: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch, others: bool
) -> None:
    with draining(settings(tmp_path)) as first:
        writer("open", "a.h5")
        writer("frames", 2)
        wait_until(lambda: len(first.of(FrameCame)) == 2)
    (tmp_path / "a.h5").unlink()
    if others:
        write_whole(tmp_path / "b.h5")
    looks = record_looks(monkeypatch, tmp_path / "a.h5")
    with draining(settings(tmp_path), first.messages) as second:
        wait_until(lambda: looks[False] > 1)
        write_whole(tmp_path / "a.h5")
        wait_until(lambda: SeriesEnded("a.h5", Ending.COMPLETE) in second.of(SeriesEnded))
    ended = [one.ending for one in second.of(SeriesEnded) if one.series == "a.h5"]
    assert ended == [Ending.ABORTED, Ending.COMPLETE]
    assert second.frames("a.h5") == [0, 1, 2]


def test_a_file_that_was_begun_and_goes_before_the_next_receiver_reads_on_is_over(
    draining: Draining, tmp_path: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with draining(settings(tmp_path)) as first:
        writer("open", "a.h5")
        writer("frames", 2)
        wait_until(lambda: len(first.of(FrameCame)) == 2)
    monkeypatch.setattr(followed_file, "stage_of", lambda path, **_: Stage.ABSENT)
    with draining(settings(tmp_path), first.messages) as second:
        wait_until(lambda: bool(second.messages))
    first.messages += second.messages[:1]
    assert first.of(SeriesEnded) == [SeriesEnded("a.h5", Ending.ABORTED)]


def test_a_file_that_goes_while_a_receiver_looks_first_brings_no_others_back(
    draining: Draining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with draining(settings(tmp_path)) as first:
        write_whole(tmp_path / "a.h5")
        wait_until(lambda: len(first.of(SeriesEnded)) == 1)
    going, scandir = [tmp_path / "b.h5"], os.scandir
    going[0].touch()

    class Listing:
        """What is there, and then one file less."""

        def __init__(self, folder: Path) -> None:
            with scandir(folder) as entries:
                self._entries = list(entries)
            if going:
                going.pop().unlink()

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self._entries

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Listing)
    with draining(settings(tmp_path), first.messages) as second:
        write_whole(tmp_path / "c.h5")
        wait_until(lambda: "c.h5" in [ended.series for ended in second.of(SeriesEnded)])
    assert [began.series for began in second.of(SeriesBegan)] == ["c.h5"]


def test_a_file_that_is_away_at_its_turn_and_back_at_once_is_taken(
    draining: Draining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = [Stage.ABSENT]
    monkeypatch.setattr(
        followed_file, "stage_of", lambda path, **options: away.pop() if away else stage_of(path, **options)
    )
    with draining(settings(tmp_path)) as drained:
        write_whole(tmp_path / "a.h5")
        wait_until(lambda: bool(drained.of(SeriesEnded)))
    assert drained.frames("a.h5") == [0, 1, 2]
    assert len(drained.of(Malformed)) == 1


@pytest.mark.parametrize("options", [{}, {"libver": "latest"}, {"userblock_size": 512}])
def test_files_that_are_written_at_once_are_taken_when_they_are_whole(
    draining: Draining, tmp_path: Path, options: dict[str, Any]
) -> None:
    write_whole(tmp_path / "earlier.h5", **options)
    os.utime(tmp_path / "earlier.h5", (0, 0))
    content = (tmp_path / "earlier.h5").read_bytes()
    with draining(settings(tmp_path)) as drained:
        with (tmp_path / "copied.h5").open("wb") as copy:
            for start in range(0, len(content), 1 + len(content) // 3):
                copy.write(content[start : start + 1 + len(content) // 3])
                copy.flush()
                time.sleep(0.05)
        wait_until(lambda: bool(drained.of(SeriesEnded)))
    assert drained.frames("copied.h5") == [0, 1, 2]
    assert drained.frames("earlier.h5") == []
    assert drained.positions_m("copied.h5 (1)")[2] == (5.0 * 1e-3, 4.0 * 1e-3)
    with draining(settings(tmp_path, earlier_files=True)) as drained:
        wait_until(lambda: len(drained.of(SeriesEnded)) == 2)


def test_a_file_that_is_made_and_opened_again_to_be_filled_is_read_as_it_grows(
    draining: Draining, tmp_path: Path, writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    with draining(settings(tmp_path, settle_s=2.0)) as drained:
        writer("open", "a.h5")
        writer("close")
        wait_until(lambda: "a.h5: this file is followed" in caplog.text)
        writer("reopen", "a.h5")
        writer("frames", 3)
        wait_until(lambda: len(drained.of(FrameCame)) == 3)
        assert not drained.of(SeriesEnded)
        writer("frames", 5)
        writer("close")
        wait_until(lambda: bool(drained.of(SeriesEnded)))
    assert drained.frames("a.h5") == [0, 1, 2, 3, 4]
    assert drained.of(SeriesEnded) == [SeriesEnded("a.h5", Ending.COMPLETE)]


@pytest.mark.parametrize("options", [{}, {"libver": "latest"}])
def test_closed_files_are_complete_whatever_the_clock_of_their_server_says(
    draining: Draining, tmp_path: Path, options: dict[str, Any]
) -> None:
    """And though they settle for longer than one may be quiet that was never closed."""
    ahead_s = time.time() + 600.0
    with draining(settings(tmp_path, settle_s=0.5, quiet_s=0.2 if options else 1.0)) as drained:
        for name in ("a.h5", "b.h5"):
            write_whole(tmp_path / f"{name}.part", **options)
            os.utime(tmp_path / f"{name}.part", (ahead_s, ahead_s))
            (tmp_path / f"{name}.part").rename(tmp_path / name)
        wait_until(lambda: len(drained.of(SeriesEnded)) == 2)
    for name in ("a.h5", "b.h5"):
        assert drained.frames(name) == [0, 1, 2]
    assert [one.ending for one in drained.of(SeriesEnded)] == [Ending.COMPLETE] * 2


def test_a_file_that_somebody_writes_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_whole(path)
    os.utime(path, (0, 0))
    assert stage_of(path, settle_s=0.1) is Stage.WRITTEN
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert stage_of(path, settle_s=0.1) is Stage.UNREADABLE
    with h5py.File(path, "w", libver="latest") as file:
        file["a"] = 1
        file.flush()
        assert stage_of(path, settle_s=0.0) is Stage.UNREADABLE
    assert stage_of(path, settle_s=0.0) is Stage.WRITTEN
    assert stage_of(tmp_path / "b.h5", settle_s=0.0) is Stage.ABSENT
    path.write_bytes(b"no HDF5")
    assert stage_of(path, settle_s=0.0) is Stage.UNREADABLE


def test_a_writer_can_go_on_with_a_file_that_is_followed(draining: Draining, tmp_path: Path, writer: Writer) -> None:
    with draining(settings(tmp_path)) as drained:
        writer("open", "a.h5")
        writer("frames", 1)
        wait_until(lambda: len(drained.of(FrameCame)) == 1)
        assert drained.frames("a.h5") == [0]
        writer("close")
        writer("append", "a.h5")  # would fail if a reader held a lock
