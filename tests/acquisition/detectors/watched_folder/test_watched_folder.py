"""A watched folder: files count when they are whole, links are not followed, whatever is no frame is said."""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drained import Drained, drains_folder
from support import wait_until
from watched_folder_messages import FRAMES, npy, tiff

from ptychoflow.acquisition.detectors.arrivals import FrameCame, Malformed, SeriesBegan, SeriesEnded
from ptychoflow.acquisition.detectors.interface import Part
from ptychoflow.acquisition.detectors.watched_folder import files as files_module
from ptychoflow.acquisition.detectors.watched_folder.connection import WatchedFolderConnection
from ptychoflow.acquisition.detectors.watched_folder.contents import frames_in
from ptychoflow.acquisition.detectors.watched_folder.decoder import WatchedFolderDecoder
from ptychoflow.acquisition.detectors.watched_folder.files import FolderWatch, NewFile
from ptychoflow.acquisition.detectors.watched_folder.settings import WatchedFolderSettings
from ptychoflow.acquisition.scan import Ending
from ptychoflow.streaming.errors import UserError


def settings(folder: Path, **changes: Any) -> WatchedFolderSettings:
    values = {"folder": folder, "series": "name", "pattern": "*", "settle_s": 0.1, "unreadable_s": 0.4} | changes
    return WatchedFolderSettings.model_validate(values)


class Files(Drained):
    """What a connection delivered, and what a decoder makes of it."""

    def __init__(self, its_settings: WatchedFolderSettings) -> None:
        super().__init__(lambda: WatchedFolderDecoder(its_settings))

    @property
    def numbers(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for arrival in self.of(FrameCame):
            found.setdefault(arrival.series, []).append(arrival.number)
        return found


Draining = Callable[..., AbstractContextManager[Files]]


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[list[NewFile]]:
    """What the folder was found to hold, each time that it was looked at."""
    look, looked = FolderWatch.look, []

    def counted(watch: FolderWatch) -> list[NewFile]:
        looked.append(look(watch))
        return looked[-1]

    monkeypatch.setattr(FolderWatch, "look", counted)
    return looked


def wait_for_looks(looked: list[list[NewFile]]) -> None:
    """Wait until all that is there by now has been looked at."""
    looks = len(looked)
    wait_until(lambda: len(looked) >= looks + 2)


@pytest.fixture
def draining(caplog: pytest.LogCaptureFixture) -> Draining:
    """A connection that has looked at what was there before, and drains until the context ends."""

    def draining(
        its_settings: WatchedFolderSettings, recalled: Sequence[Sequence[Part]] = ()
    ) -> AbstractContextManager[Files]:
        left_out = None if its_settings.earlier_files else "there before are left out"
        connection, drained = WatchedFolderConnection(its_settings), Files(its_settings)
        return drains_folder(connection, drained, caplog, recalled=recalled, left_out=left_out)

    return draining


def test_files_are_delivered_as_they_come_and_frames_are_those_written(draining: Draining, tmp_path: Path) -> None:
    (tmp_path / "scan1_0.tif").write_bytes(tiff(FRAMES[0]))
    with draining(settings(tmp_path)) as drained:
        for number in (1, 2):
            (tmp_path / f"scan1_{number}.tif").write_bytes(tiff(FRAMES[number]))
            wait_until(lambda number=number: len(drained.of(FrameCame)) == number)
        (tmp_path / "scan2_00000.npy").write_bytes(npy(FRAMES[0]))
        wait_until(lambda: len(drained.of(FrameCame)) == 3)
    assert drained.numbers == {"scan1_": [1, 2], "scan2_": [0]}
    for arrival, frame in zip(drained.of(FrameCame), FRAMES[[1, 2, 0]], strict=True):
        np.testing.assert_array_equal(arrival.image.decode(), frame)
    begins = [WatchedFolderConnection.begins_series(parts) for parts in drained.messages]
    assert begins == [False, True, False, False, True, False]
    assert [arrival.series for arrival in drained.of(SeriesBegan)] == ["scan1_", "scan2_"]
    assert not drained.of(SeriesEnded)


def test_files_of_folders_and_several_frames_in_a_file(draining: Draining, tmp_path: Path) -> None:
    its_settings = settings(tmp_path, series="folder", frames_per_file=3, files_per_series=2, earlier_files=True)
    for name, frames in (("b/part_1.tif", FRAMES), ("b/part_2.npy", FRAMES[:2]), ("c/part_7.tif", FRAMES)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((tiff if name.endswith(".tif") else npy)(frames))
        os.utime(tmp_path / name, ns=(0, int(name[7]) * 10**9))
    (tmp_path / "at_the_top_1.tif").write_bytes(tiff(FRAMES))
    with draining(its_settings) as drained:
        wait_until(lambda: len(drained.of(FrameCame)) == 8)
        (tmp_path / "d").mkdir()
        (tmp_path / "d" / "1.tif").write_bytes(tiff(FRAMES))
        wait_until(lambda: len(drained.of(FrameCame)) == 11)
    assert drained.numbers == {"b": [3, 4, 5, 6, 7], "c": [21, 22, 23], "d": [3, 4, 5]}
    assert drained.of(SeriesEnded) == [SeriesEnded("b", Ending.COMPLETE)]


@pytest.mark.parametrize("series", ["name", "folder"])
@pytest.mark.parametrize("earlier_files", [False, True])
def test_what_came_meanwhile_is_taken_once_a_receiver_is_back(
    draining: Draining, tmp_path: Path, looked: list[list[NewFile]], series: str, earlier_files: bool
) -> None:
    its_settings = settings(tmp_path, series=series, files_per_series=4, earlier_files=earlier_files)

    def write(*numbers: int) -> None:
        for number in numbers:
            path = tmp_path / (f"a/{number}.tif" if series == "folder" else f"a{number}.tif")
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(tiff(FRAMES[0]))

    write(0)
    expected = [0, 1, 2, 3, 4, 5] if earlier_files else [1, 2, 3, 4, 5]
    with draining(its_settings) as first:
        write(1, 2)
        wait_until(lambda: len(first.of(FrameCame)) == len(expected) - 3)
    write(3, 4)
    with draining(its_settings, [*first.messages, [], [b""]]) as second:
        write(5)
        wait_until(lambda: len(second.of(FrameCame)) == 3)
        wait_for_looks(looked)
    first.messages += second.messages
    assert first.numbers == {"a": expected}
    assert len(first.of(SeriesBegan)) == len(first.of(SeriesEnded)) == 1
    assert not first.of(Malformed)


def test_every_file_a_series(draining: Draining, tmp_path: Path) -> None:
    with draining(settings(tmp_path, series="file")) as drained:
        (tmp_path / "a.npy").write_bytes(npy(FRAMES))
        wait_until(lambda: bool(drained.of(SeriesEnded)))
    assert drained.numbers == {"a.npy": [0, 1, 2]}
    assert isinstance(drained.arrivals[0], SeriesBegan)


@pytest.mark.parametrize(
    ("series", "name", "again", "files_per_series"),
    [
        ("file", "a_1.npy", "a_1.npy", None),
        ("folder", "scan/f_1.npy", "scan/f_1.npy", 1),
        ("folder", "scan/f_1.npy", "scan/f_7.npy", 1),
        ("folder", "scan/f_1.npy", "scan/f_7.npy", None),
        ("name", "a_1.npy", "a_1.npy", 1),
        ("name", "a_1.npy", "a_1.npy", None),
    ],
)
def test_a_series_whose_name_comes_again_after_it_was_moved_away_is_another_one(
    draining: Draining,
    tmp_path: Path,
    looked: list[list[NewFile]],
    series: str,
    name: str,
    again: str,
    files_per_series: int | None,
) -> None:
    watched, away = tmp_path / "watched", tmp_path / "away"
    watched.mkdir()
    its_settings = settings(watched, series=series, files_per_series=files_per_series, frames_per_file=3)
    with draining(its_settings) as drained:
        (watched / name).parent.mkdir(exist_ok=True)
        (watched / name).write_bytes(npy(FRAMES))
        wait_until(lambda: len(drained.of(FrameCame)) == 3)
        (watched / Path(name).parts[0]).rename(away)
        wait_for_looks(looked)
        (watched / again).parent.mkdir(exist_ok=True)
        (watched / again).write_bytes(npy(FRAMES))
        wait_until(lambda: len(drained.of(FrameCame)) == 6)
    assert len(drained.of(SeriesBegan)) == 2
    whole = series == "file" or files_per_series
    endings = [one.ending for one in drained.of(SeriesEnded)]
    assert endings == ([Ending.COMPLETE] * 2 if whole else [Ending.NEXT_SERIES])


@pytest.mark.parametrize("series", ["name", "file", "folder"])
def test_files_of_a_folder_that_was_unmounted_for_a_while_are_not_taken_again(
    draining: Draining, tmp_path: Path, looked: list[list[NewFile]], series: str
) -> None:
    """The empty folder below is in its place. What was there before the run is left out still."""
    watched, away = tmp_path / "watched", tmp_path / "away"
    (watched / "scan").mkdir(parents=True)
    folder = watched / "scan" if series == "folder" else watched
    (folder / "a_0.npy").write_bytes(npy(FRAMES[0]))
    with draining(settings(watched, series=series)) as drained:
        (folder / "a_1.npy").write_bytes(npy(FRAMES[1]))
        wait_until(lambda: len(drained.of(FrameCame)) == 1)
        watched.rename(away)
        watched.mkdir()
        wait_for_looks(looked)
        watched.rmdir()
        away.rename(watched)
        (folder / "a_2.npy").write_bytes(npy(FRAMES[2]))
        wait_until(lambda: len(drained.of(FrameCame)) >= 2)
        wait_for_looks(looked)
    assert [came.number for came in drained.of(FrameCame)] == ([0, 0] if series == "file" else [1, 2])
    assert len(drained.of(SeriesBegan)) == (2 if series == "file" else 1)


@pytest.mark.parametrize("series", ["name", "file", "folder"])
@pytest.mark.parametrize("earlier_files", [False, True])
def test_files_of_a_folder_that_is_mounted_after_a_receiver_is_back_are_not_taken_again(
    draining: Draining, tmp_path: Path, looked: list[list[NewFile]], series: str, earlier_files: bool
) -> None:
    watched, away = tmp_path / "watched", tmp_path / "away"
    (watched / "scan").mkdir(parents=True)
    folder = watched / "scan" if series == "folder" else watched
    (folder / "a_0.npy").write_bytes(npy(FRAMES[0]))
    its_settings = settings(watched, series=series, earlier_files=earlier_files)
    with draining(its_settings) as first:
        (folder / "a_1.npy").write_bytes(npy(FRAMES[1]))
        wait_until(lambda: len(first.of(FrameCame)) == 1 + earlier_files)
    watched.rename(away)
    watched.mkdir()
    with draining(its_settings, first.messages) as second:
        wait_for_looks(looked)
        watched.rmdir()
        away.rename(watched)
        (folder / "a_2.npy").write_bytes(npy(FRAMES[2]))
        wait_until(lambda: bool(second.of(FrameCame)))
        wait_for_looks(looked)
    assert [came.number for came in second.of(FrameCame)] == [0 if series == "file" else 2]
    assert second.of(FrameCame)[0].image.decode().tolist() == FRAMES[2].tolist()


def test_files_of_names_that_were_told_are_taken_in_a_folder_that_was_emptied(
    draining: Draining, tmp_path: Path, looked: list[list[NewFile]]
) -> None:
    with draining(settings(tmp_path)) as first:
        (tmp_path / "a_1.npy").write_bytes(npy(FRAMES[1]))
        wait_until(lambda: len(first.of(FrameCame)) == 1)
    (tmp_path / "a_1.npy").unlink()
    with draining(settings(tmp_path), first.messages) as second:
        wait_for_looks(looked)
        (tmp_path / "a_1.npy").write_bytes(npy(FRAMES[1]))
        wait_until(lambda: len(second.of(FrameCame)) == 1)


def test_files_of_another_folder_in_the_place_of_the_watched_one_are_taken(
    draining: Draining, tmp_path: Path, looked: list[list[NewFile]]
) -> None:
    watched = tmp_path / "watched"
    watched.mkdir()
    with draining(settings(watched)) as drained:
        (watched / "a_1.npy").write_bytes(npy(FRAMES[1]))
        wait_until(lambda: len(drained.of(FrameCame)) == 1)
        watched.rename(tmp_path / "away")
        watched.mkdir()
        wait_for_looks(looked)
        (watched / "a_1.npy").write_bytes(npy(FRAMES[1]))
        wait_until(lambda: len(drained.of(FrameCame)) == 2)
    assert len(drained.of(SeriesBegan)) == 2


def test_a_folder_may_be_named_by_a_link(
    draining: Draining, tmp_path: Path, looked: list[list[NewFile]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "LISTED_AGAIN_S", 0.0)
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with draining(settings(tmp_path / "link")) as drained:
        for number in range(3):
            wait_for_looks(looked)
            (tmp_path / "real" / f"a_{number}.npy").write_bytes(npy(FRAMES[0]))
            wait_until(lambda number=number: drained.numbers.get("a_", [])[-1:] == [number])


def test_files_of_a_folder_that_was_made_anew_are_taken_once_a_receiver_is_back(
    draining: Draining, tmp_path: Path, looked: list[list[NewFile]]
) -> None:
    watched, its_settings = tmp_path / "watched", settings(tmp_path / "watched", series="folder")

    def write(*numbers: int) -> None:
        (watched / "scan").mkdir(exist_ok=True)
        for number in numbers:
            (watched / "scan" / f"{number}.npy").write_bytes(npy(FRAMES[0]))

    watched.mkdir()
    with draining(its_settings) as first:
        write(0, 1, 2)
        wait_until(lambda: len(first.of(FrameCame)) == 3)
        (watched / "scan").rename(tmp_path / "away")
        wait_for_looks(looked)
        write(0)
        wait_until(lambda: len(first.of(FrameCame)) == 4)
    write(1, 2)
    with draining(its_settings, first.messages) as second:
        write(3)
        wait_until(lambda: len(second.of(FrameCame)) == 3)
    assert second.numbers == {"scan": [1, 2, 3]}
    assert not second.of(SeriesBegan)


@pytest.mark.parametrize(("name", "content"), [("a_1.npy", npy(FRAMES)), ("a_1.tif", tiff(FRAMES))])
def test_a_file_counts_when_it_is_whole(
    draining: Draining, tmp_path: Path, looked: list[list[NewFile]], name: str, content: bytes
) -> None:
    with draining(settings(tmp_path, frames_per_file=3, unreadable_s=5.0)) as drained:
        with (tmp_path / name).open("wb") as file:
            file.write(content[: len(content) // 2])
            file.flush()
            wait_until(lambda: any(file.failed for files in looked for file in files))  # it has settled, and was read
            assert not drained.arrivals
            file.write(content[len(content) // 2 :])
        wait_until(lambda: len(drained.of(FrameCame)) == 3)
        (tmp_path / name).touch()
        (tmp_path / "b_1.npy").write_bytes(npy(FRAMES))
        wait_until(lambda: len(drained.of(FrameCame)) == 6)
    assert drained.numbers == {"a_": [3, 4, 5], "b_": [3, 4, 5]}
    assert not drained.of(Malformed)


def link(folder: Path) -> None:
    (folder / "a_1.tif").symlink_to(folder.parent / "secret_1.tif")


def link_to_a_folder(folder: Path) -> None:
    (folder / "linked").symlink_to(folder.parent / "secrets")


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "a_1.tif")


def hidden(folder: Path) -> None:
    (folder / ".a_1.tif").write_bytes(tiff(FRAMES[0]))


def without_number(folder: Path) -> None:
    (folder / "a.tif").write_bytes(tiff(FRAMES[0]))


def no_text(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff_1.tif")).write_bytes(tiff(FRAMES[0]))


@pytest.mark.parametrize("make", [link, link_to_a_folder, pipe, hidden, without_number, no_text])
@pytest.mark.parametrize("series", ["name", "folder"])
def test_what_is_no_file_of_the_folder_is_passed_over(
    draining: Draining, tmp_path: Path, make: Callable[[Path], None], series: str
) -> None:
    folder = tmp_path / "inside"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secrets").mkdir()
    for secret in ("secret_1.tif", "secrets/a_1.tif"):
        (tmp_path / secret).write_bytes(tiff(FRAMES[0]))
    with draining(settings(folder, series=series)) as drained:
        make(folder / "sub" if series == "folder" and make is not link_to_a_folder else folder)
        for count, number in enumerate((7, 8)):  # with the second one, all that was there before the first has settled
            good = (folder / "sub" if series == "folder" else folder) / f"good_{number}.tif"
            good.write_bytes(tiff(FRAMES[0]))
            wait_until(lambda count=count: len(drained.of(FrameCame)) > count)
    assert list(drained.numbers.values()) == [[7, 8]]
    assert not drained.of(Malformed)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a_1.tif", b"no TIFF", "cannot be read as TIFF"),
        ("a_1.tif", tiff(FRAMES[0])[:-20], "cannot be read as TIFF"),
        ("a_1.tif", tiff(FRAMES[0], compression="zlib")[:-20], "cannot be read as TIFF"),
        ("a_1.tif", tiff(FRAMES), "more than 1 frames"),
        ("a_1.tif", tiff(np.zeros((2000, 1), np.uint8)), "no frame"),
        ("a_1.npy", npy(FRAMES)[:-1], "are not taken"),
        ("a_1.npy", npy(FRAMES[0])[:-1], "bytes are there of"),
        ("a_1.npy", npy(FRAMES[0].T), "first axis"),
        ("a_1.npy", npy(FRAMES[0].astype(complex)), "complex"),
        ("a_1.npy", npy(np.array([None])), "pickle"),
        ("a_1.npy", b"\x93NUMPY\x01\x00\x04\x00((((", "NumPy"),
        ("a_1.tif", bytes(6000), "max_file_bytes"),
    ],
)
def test_files_that_are_no_frames_are_said(
    draining: Draining, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    with draining(settings(tmp_path, max_frame_px=1000, max_file_bytes=5000)) as drained:
        (tmp_path / name).write_bytes(content)
        wait_until(lambda: bool(drained.of(Malformed)))
        (tmp_path / "b_1.tif").write_bytes(tiff(FRAMES[0]))
        wait_until(lambda: bool(drained.of(FrameCame)))
    (malformed,) = drained.of(Malformed)
    assert malformed.reason.startswith(f"{name} is left out: ")
    assert said in malformed.reason
    assert drained.numbers == {"b_": [1]}


@pytest.mark.parametrize("dtype", ["<u1", "<u2", ">u2", "<u4", ">u4", "<i2", "<f4", ">f4"])
def test_frames_of_every_type(dtype: str) -> None:
    frames = FRAMES.astype(dtype)
    files = {
        "a.npy": npy(frames),
        "a.tif": tiff(frames, byteorder=">" if dtype[0] == ">" else "<"),
        "b.tif": tiff(frames, compression="zlib"),
        "c.tif": tiff(frames, bigtiff=True),
    }
    for name, content in files.items():
        images = frames_in(memoryview(content), name, most_frames=3, max_frame_px=100)
        for image, frame in zip(images, frames, strict=True):
            assert image.shape_px == frame.shape
            decoded = pickle.loads(pickle.dumps(image)).decode()
            assert decoded.dtype == image.dtype
            np.testing.assert_array_equal(decoded, frame)


@pytest.mark.parametrize("behind_s", [0.0, 3600.0, -3600.0])
def test_a_file_is_seen_that_came_in_the_same_tick_of_a_servers_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behind_s: float
) -> None:
    """Wherever that clock stands; and a folder that has not changed for long is not listed any more."""
    monkeypatch.setattr(files_module, "LISTED_AGAIN_S", 0.2)
    listed, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or scandir(path))
    watch = FolderWatch(settings(tmp_path))
    tick = time.time() - behind_s
    for number in range(2):
        (tmp_path / f"a_{number}.npy").touch()
        os.utime(tmp_path, (tick, tick))
        watch.look()
    wait_until(lambda: [file.number for file in watch.look()] == [0, 1])
    wait_until(lambda: bool(watch.look()) and watch._listed[""].known)
    listed.clear()
    watch.look()
    assert not listed


def test_a_folder_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        WatchedFolderConnection(settings(tmp_path / "absent")).drain(lambda _: None, threading.Event())
