"""What is taken of HDF5 files: datasets of frames and of positions, never from outside of their folder."""

from __future__ import annotations

import pickle
import threading
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from growing_files import SHAPE_PX, Draining, Writer, frame, settings, write_whole
from pydantic import ValidationError
from support import wait_until

from ptychoflow.acquisition.detectors.arrivals import (
    FrameCame,
    Malformed,
    PositionsBegan,
    PositionsEnded,
    SeriesBegan,
    SeriesEnded,
)
from ptychoflow.acquisition.detectors.hdf5_swmr.connection import Hdf5SwmrConnection
from ptychoflow.acquisition.detectors.hdf5_swmr.decoder import Hdf5SwmrDecoder
from ptychoflow.acquisition.detectors.hdf5_swmr.files import Stage, stage_of
from ptychoflow.acquisition.detectors.hdf5_swmr.image import Hdf5Image
from ptychoflow.acquisition.detectors.hdf5_swmr.messages import (
    FileBegan,
    FileEnded,
    FramesWritten,
    PositionsWritten,
    encode,
)
from ptychoflow.streaming.errors import UserError


def test_only_frames_or_only_positions_are_taken(draining: Draining, tmp_path: Path, writer: Writer) -> None:
    with (
        draining(settings(tmp_path, positions=None)) as frames,
        draining(settings(tmp_path, frames=None)) as positions,
    ):
        writer("open", "a.h5")
        writer("frames", 2)
        writer("positions", 2)
        writer("close")
        wait_until(lambda: bool(frames.of(SeriesEnded)) and bool(positions.of(PositionsEnded)))
    assert frames.frames("a.h5") == [0, 1]
    assert not frames.of(PositionsBegan)
    assert positions.of(PositionsBegan) == [PositionsBegan("a.h5 (1)", series=None)]
    assert len(positions.positions_m("a.h5 (1)")) == 2
    assert not positions.of(FrameCame)
    assert not positions.of(SeriesBegan)


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ({"path": "/t", "columns": "yx", "unit": "um"}, {0: (0.0, 1e-6), 1: (4e-6, 5e-6)}),
        ({"path": "/t", "column_y": 3, "column_x": 1, "unit": "m", "sign_y": -1}, {0: (-3.0, 1.0), 1: (-7.0, 5.0)}),
        ({"path_y": "/y", "path_x": "/x"}, {0: (1e-3, 3e-9), 1: (2e-3, 4e-9)}),
        (
            {"path": "/t", "columns": "yx", "unit": "m", "index": {"column": 2, "origin": 1}},
            {1: (0.0, 1.0), 5: (4.0, 5.0)},
        ),
        ({"path_y": "/y", "path_x": "/x", "index": {"path": "/n", "origin": 1}}, {9: (1e-3, 3e-9)}),
    ],
)
def test_positions_are_described_as_those_of_files(
    draining: Draining, tmp_path: Path, positions: dict[str, Any], expected: dict[int, tuple[float, float]]
) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["t"] = np.arange(8.0).reshape(2, 4)
        file["y"], file["x"], file["n"] = [1.0, 2.0], [3.0, 4.0], [10]
        file["y"].attrs["units"], file["x"].attrs["units"] = "mm", "nm"
    with draining(settings(tmp_path, frames=None, positions=positions, earlier_files=True)) as drained:
        wait_until(lambda: bool(drained.of(PositionsEnded)))
    found = drained.positions_m("a.h5 (1)")
    assert found.keys() == expected.keys()
    for number, position_m in expected.items():
        assert found[number] == pytest.approx(position_m, rel=1e-12)


def outside(tmp_path: Path) -> Path:
    """A folder with a file outside of it that holds what is looked for."""
    folder = tmp_path / "inside"
    folder.mkdir()
    write_whole(tmp_path / "secret.h5")
    return folder


def link_to_a_file(folder: Path) -> None:
    (folder / "a.h5").symlink_to(folder.parent / "secret.h5")


def external_link(folder: Path) -> None:
    with h5py.File(folder / "a.h5", "w") as file:
        file["entry/data/data"] = h5py.ExternalLink("../secret.h5", "/entry/data/data")


def link_to_an_external_link(folder: Path) -> None:
    with h5py.File(folder / "a.h5", "w") as file:
        file["other"] = h5py.ExternalLink(str(folder.parent / "secret.h5"), "/entry")
        file["entry"] = h5py.SoftLink("/other")


def external_values(folder: Path) -> None:
    with h5py.File(folder / "a.h5", "w") as file:
        values = [(str(folder.parent / "secret.h5").encode(), 0, 24)]
        file.create_dataset("entry/data/data", (1, 3, 4), "u2", external=values)


def virtual(folder: Path) -> None:
    layout = h5py.VirtualLayout((3, *SHAPE_PX), "u2")
    layout[:] = h5py.VirtualSource(str(folder.parent / "secret.h5"), "/entry/data/data", (3, *SHAPE_PX))
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_virtual_dataset("entry/data/data", layout)


def link_to_itself(folder: Path) -> None:
    with h5py.File(folder / "a.h5", "w") as file:
        file["entry"] = h5py.SoftLink("/entry")


def huge_chunks(folder: Path) -> None:
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("entry/data/data", (0, 3, 4), "u2", maxshape=(None, 3, 4), chunks=(1 << 26, 3, 4))


def of_two_axes(folder: Path) -> None:
    with h5py.File(folder / "a.h5", "w") as file:
        file["entry/data/data"] = np.zeros((3, 4))


def of_texts(folder: Path) -> None:
    with h5py.File(folder / "a.h5", "w") as file:
        file["entry/data/data"] = [[["text"]]]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (link_to_a_file, "never finished"),
        (external_link, "lies outside"),
        (link_to_an_external_link, "lies outside"),
        (external_values, "files that are not HDF5"),
        (virtual, "virtual dataset"),
        (link_to_itself, "links without end"),
        (huge_chunks, "chunks of"),
        (of_two_axes, "frames (frame, y, x)"),
        (of_texts, "frames (frame, y, x)"),
    ],
)
def test_what_lies_elsewhere_or_is_no_frames_is_left_out_and_said(
    draining: Draining, tmp_path: Path, make: Any, said: str
) -> None:
    folder = outside(tmp_path)
    make(folder)
    with draining(settings(folder, positions=None, earlier_files=True)) as drained:
        if make is link_to_a_file:
            wait_until(lambda: stage_of(folder / "a.h5", settle_s=0.2) is Stage.WRITTEN)
        write_whole(folder / "whole.h5")
        wait_until(lambda: bool(drained.of(SeriesEnded)))
    (malformed,) = drained.of(Malformed)
    assert said in malformed.reason
    assert "\n" not in malformed.reason
    assert {arrival.series for arrival in drained.of(FrameCame)} == {"whole.h5"}


def test_an_external_link_inside_of_the_folder_is_followed(draining: Draining, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_whole(tmp_path / "data" / "frames.h5")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["entry/data"] = h5py.SoftLink("/entry/elsewhere/data")
        file["entry/elsewhere"] = h5py.ExternalLink("data/frames.h5", "/entry")
    with draining(settings(tmp_path, positions=None, earlier_files=True)) as drained:
        wait_until(lambda: bool(drained.of(SeriesEnded)))
    assert drained.frames("a.h5") == [0, 1, 2]


@pytest.mark.parametrize(("unit", "said"), [(None, "nothing says which unit"), ("deg", "not known as the unit")])
def test_a_unit_is_asked_for(draining: Draining, tmp_path: Path, unit: str | None, said: str) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["entry/positions"] = np.zeros((3, 2))
        if unit is not None:
            file["entry/positions"].attrs["units"] = unit
    with draining(settings(tmp_path, frames=None, earlier_files=True)) as drained:
        wait_until(lambda: bool(drained.of(Malformed)))
    assert said in drained.of(Malformed)[0].reason


def test_a_frame_can_be_decoded_in_another_process_and_says_what_is_wrong(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.h5")
    image = Hdf5Image(tmp_path, "a.h5", "/entry/data/data", 2, SHAPE_PX, np.dtype(np.uint16), 1 << 20)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(image)).decode(), frame(2))
    for changed in (
        Hdf5Image(tmp_path, "a.h5", "/entry/data/data", 3, SHAPE_PX, image.dtype, 1 << 20),
        Hdf5Image(tmp_path, "a.h5", "/entry/data/data", 2, (4, 3), image.dtype, 1 << 20),
        Hdf5Image(tmp_path, "a.h5", "/entry/data/data", 2, SHAPE_PX, np.dtype(np.uint32), 1 << 20),
        Hdf5Image(tmp_path, "a.h5", "/entry/nothing", 2, SHAPE_PX, image.dtype, 1 << 20),
        Hdf5Image(tmp_path, "b.h5", "/entry/data/data", 2, SHAPE_PX, image.dtype, 1 << 20),
        Hdf5Image(tmp_path / "b", "../a.h5", "/entry/data/data", 2, SHAPE_PX, image.dtype, 1 << 20),
    ):
        with pytest.raises(ValueError, match=str(tmp_path)) as raised:
            changed.decode()
        assert "\n" not in str(raised.value)


def test_a_message_asks_for_no_more_than_is_allowed(tmp_path: Path) -> None:
    decoder = Hdf5SwmrDecoder(settings(tmp_path))
    good = FramesWritten("a.h5", "/entry/data/data", SHAPE_PX, "uint16", 0, 2)
    assert len(list(decoder.decode([encode(good)]))) == 2
    wrong = [
        [],
        [b""],
        [b"\xc1"],
        [encode(good)] * 2,
        [encode(FramesWritten("a.h5", "/d", (1 << 20, 1 << 20), "uint16", 0, 2))],
        [encode(FramesWritten("a.h5", "/d", SHAPE_PX, "object", 0, 2))],
        [encode(FramesWritten("a.h5", "/d", SHAPE_PX, "uint16", 0, 1 << 40))],
        [encode(FramesWritten("../a.h5", "/d", SHAPE_PX, "uint16", 0, 2))],
        [encode(FileBegan("", SHAPE_PX))],
        [bytes(1 << 20)],
    ]
    for parts in wrong:
        arrivals = list(decoder.decode(parts))
        assert [type(arrival) for arrival in arrivals] == [Malformed], parts
    damaged = encode(PositionsWritten("a.h5", bytes(16), bytes(24)))
    assert isinstance(list(decoder.decode([damaged]))[-1], Malformed)
    assert len(list(decoder.decode([encode(FileEnded("a.h5", complete=False))]))) == 2


def test_what_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        Hdf5SwmrConnection(settings(tmp_path / "absent")).drain(lambda _: None, threading.Event())
    for wrong in (
        {"frames": None, "positions": None},
        {"pattern": "a/b.h5"},
        {"positions": {"path": "/p", "unit": "px"}},
        {"positions": {"path": "/p", "file": "b.h5"}},
        {"positions": {"path": "/p", "foreshortened_x": True}},
        {"positions": {"path": "/p", "column_y": "y", "column_x": "x"}},
    ):
        with pytest.raises(ValidationError):
            settings(tmp_path, **wrong)
