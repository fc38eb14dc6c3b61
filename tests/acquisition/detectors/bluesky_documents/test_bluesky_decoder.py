"""Documents become frames, positions and ends; what is of no interest says nothing, what is wrong is told."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bluesky_documents_messages import FRAMES, SHAPE_PX, Document, documents, folder, message, settings
from pydantic import ValidationError

from ptychoflow.acquisition.detectors.arrivals import (
    Arrival,
    FrameCame,
    Malformed,
    PositionsBegan,
    PositionsCame,
    PositionsEnded,
    SeriesBegan,
    SeriesEnded,
    SeriesHeader,
)
from ptychoflow.acquisition.detectors.bluesky_documents.decoder import BlueskyDocumentsDecoder
from ptychoflow.acquisition.scan import Ending


def uri() -> str:
    return f"file://localhost{folder()}/a.h5"


def decoded(all_of_them: Iterable[Document], *, as_json: bool = False, **changes: object) -> list[Arrival]:
    decoder = BlueskyDocumentsDecoder(settings(folder(), **changes))
    return [arrival for one in all_of_them for arrival in decoder.decode(message(one, as_json=as_json))]


def of(arrivals: Iterable[Arrival], kind: type[Any]) -> list[Any]:
    return [arrival for arrival in arrivals if isinstance(arrival, kind)]


def positions_m(arrivals: Iterable[Arrival]) -> dict[int, tuple[float, float]]:
    return {
        int(number): (float(y), float(x))
        for arrival in of(arrivals, PositionsCame)
        for number, (y, x) in zip(arrival.numbers, arrival.positions_m, strict=True)
    }


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    ("exit_status", "ending"), [("success", "COMPLETE"), ("abort", "ABORTED"), ("fail", "ABORTED")]
)
def test_a_step_scan(as_json: bool, exit_status: str, ending: str) -> None:
    scan = documents(uri(), exit_status=exit_status)
    arrivals = decoded(scan, as_json=as_json, angle_key="angle", energy_key="energy")
    assert not of(arrivals, Malformed)
    assert of(arrivals, SeriesBegan) == [
        SeriesBegan("run", SeriesHeader(angle_deg=12.5, energy_eV=8800.0, most_frames=8))
    ]
    assert of(arrivals, PositionsBegan) == [PositionsBegan("run", series="run")]
    assert arrivals[-2:] == [PositionsEnded("run", Ending[ending]), SeriesEnded("run", Ending[ending])]
    frames = of(arrivals, FrameCame)
    assert [(frame.series, frame.number) for frame in frames] == [("run", index) for index in range(8)]
    for index, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.image.decode(), FRAMES[index])
    found = positions_m(arrivals)
    assert sorted(found) == list(range(8))
    for index, place_m in found.items():
        assert place_m == pytest.approx((-0.5e-3 * index, 1e-6 * index))


def test_positions_alone_and_frames_alone() -> None:
    scan = documents(uri())
    positions = decoded(scan, frames=None, folder=None)
    assert positions[0] == PositionsBegan("run", series=None)
    assert {type(arrival) for arrival in positions} == {PositionsBegan, PositionsCame, PositionsEnded}
    frames = decoded(scan, field_y=None, field_x=None)
    assert {type(arrival) for arrival in frames} == {SeriesBegan, FrameCame, SeriesEnded}
    assert not decoded(scan, frames=None, folder=None, stream="other")


def test_runs_without_frames_end_no_series() -> None:
    """Nested and alignment runs, whose documents come in between."""
    outer, inner = documents(uri(), run="outer"), documents(uri(), run="inner")
    without_frames = [one for one in inner if not one[0].startswith("stream")]
    arrivals = decoded([*outer[:12], *without_frames, *outer[12:]])
    assert not of(arrivals, Malformed)
    assert [arrival.series for arrival in of(arrivals, SeriesBegan)] == ["outer"]
    assert [arrival.series for arrival in of(arrivals, SeriesEnded)] == ["outer"]
    assert len(of(arrivals, FrameCame)) == 8


def test_several_frames_at_one_point() -> None:
    scan = copy.deepcopy(documents(uri(), points=4))
    for name, values in scan:
        if name == "descriptor":
            values["data_keys"]["det"]["shape"] = [2, *SHAPE_PX]
        elif name == "stream_datum" and "-det" in values["stream_resource"]:
            values["indices"] = {"start": 2 * values["indices"]["start"], "stop": 2 * values["indices"]["stop"]}
    arrivals = decoded(scan)
    assert [frame.number for frame in of(arrivals, FrameCame)] == list(range(8))
    found = positions_m(arrivals)
    assert found[6] == found[7] == pytest.approx((-1.5e-3, 3e-6))


def test_rows_that_are_not_counted_from_0_belong_to_their_events() -> None:
    scan = copy.deepcopy(documents(uri(), points=3))
    for name, values in scan:
        if name == "stream_datum":
            values["indices"] = {key: row + 4 for key, row in values["indices"].items()}
    frames = of(decoded(scan), FrameCame)
    assert [frame.number for frame in frames] == [0, 1, 2]
    np.testing.assert_array_equal(frames[2].image.decode(), FRAMES[6])


def test_pages_of_events() -> None:
    scan = documents(uri())
    events = [values for name, values in scan if name == "event" and values["descriptor"] == "run-d"]
    data = {key: [event["data"][key] for event in events] for key in "yx"}
    page = {"descriptor": "run-d", "seq_num": [event["seq_num"] for event in events], "data": data}
    paged = decoded([*(one for one in scan[:-1] if one[1] not in events), ("event_page", page), scan[-1]])
    assert positions_m(paged) == positions_m(decoded(scan))


def test_what_was_lost_is_told_and_the_rest_is_taken() -> None:
    scan = documents(uri())
    without_start = decoded(scan[1:])
    assert not of(without_start, SeriesBegan)
    assert len(of(without_start, FrameCame)) == len(positions_m(without_start)) == 8
    assert of(without_start, SeriesEnded)
    without_descriptor = decoded([scan[0], *scan[2:]])
    assert "beginning was lost" in of(without_descriptor, Malformed)[0].reason
    assert not of(without_descriptor, FrameCame)
    without_resource = decoded([one for one in scan if one[0] != "stream_resource"])
    assert "name was lost" in of(without_resource, Malformed)[0].reason
    assert len(positions_m(without_resource)) == 8
    assert not decoded([scan[-1]])


def test_a_folder_that_has_another_name_for_the_detector() -> None:
    scan = documents("file://writer.host/data%20of/2026/a.h5")
    frames = of(decoded(scan, folder_there="/data of/2026"), FrameCame)
    np.testing.assert_array_equal(frames[3].image.decode(), FRAMES[3])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"uri": "file://localhost/etc/passwd"}, "not within"),
        ({"uri": f"file://localhost{folder()}/../secret.h5"}, "not within"),
        ({"uri": f"file://localhost{folder()}/%2e%2e/secret.h5"}, "not within"),
        ({"uri": "https://host/a.h5"}, "no file"),
        ({"mimetype": "multipart/related;type=image/tiff"}, "image/tiff"),
        ({"parameters": {}}, "which dataset"),
        ({"parameters": {"dataset": ["a"]}}, "which dataset"),
    ],
)
def test_files_that_are_not_read(change: dict[str, Any], said: str) -> None:
    scan = [(name, {**values, **change} if name == "stream_resource" else values) for name, values in documents(uri())]
    arrivals = decoded(scan)
    assert said in of(arrivals, Malformed)[0].reason
    assert not of(arrivals, FrameCame)
    assert len(positions_m(arrivals)) == 8


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "b.h5").symlink_to(folder() / "a.h5")
    decoder = BlueskyDocumentsDecoder(settings(tmp_path))
    scan = documents(f"file://localhost{tmp_path}/b.h5")
    frames = [frame for one in scan for frame in decoder.decode(message(one)) if isinstance(frame, FrameCame)]
    with pytest.raises(ValueError, match="outside"):
        frames[0].image.decode()


@pytest.mark.parametrize("name", ["absent.h5", "a" * 1000 + ".h5", "a.h5/b", "pipe.h5"])
def test_frames_in_files_that_cannot_be_opened_are_damaged(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe.h5")
    (tmp_path / "a.h5").touch()
    decoder = BlueskyDocumentsDecoder(settings(tmp_path))
    scan = documents(f"file://localhost{tmp_path}/{name}")
    frames = [frame for one in scan for frame in decoder.decode(message(one)) if isinstance(frame, FrameCame)]
    assert len(frames) == 8
    for frame in frames:
        with pytest.raises(ValueError, match="frame"):
            frame.image.decode()


@pytest.mark.parametrize(
    ("key", "change", "said"),
    [
        ("det", {"shape": [1, 1 << 20, 1 << 20]}, "max_frame_px"),
        ("det", {"shape": []}, "not (y, x)"),
        ("det", {"shape": "none"}, "not (y, x)"),
        ("det", {"dtype_numpy": "O"}, "not of numbers"),
        ("det", {"dtype_numpy": [["a", "<f8"]]}, "not of numbers"),
        ("y", {"units": "deg"}, "no length"),
        ("x", {"units": None}, "no length"),
    ],
)
def test_descriptions_that_cannot_be_used(key: str, change: dict[str, Any], said: str) -> None:
    scan = copy.deepcopy(documents(uri()))
    for name, values in scan:
        if name == "descriptor":
            values["data_keys"][key] |= change
    arrivals = decoded(scan)
    assert said in of(arrivals, Malformed)[0].reason
    assert len(of(arrivals, FrameCame)) == (0 if key == "det" else 8)
    assert len(positions_m(arrivals)) == (8 if key == "det" else 0)
    if key != "det":
        assert len(positions_m(decoded(scan, unit="um"))) == 8


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        [b""],
        [b"start"],
        [b" start "],
        [b" start \xc1"],
        [b" start {"],
        [b" start []"],
        [b" start " + b"[" * 100_000],
        [b' event {"descriptor": "run-d", "seq_num": -1, "data": {}}'],
        [b' event {"descriptor": "run-d", "seq_num": 1, "data": {"y": 0}}'],
        [b' event {"descriptor": "run-d", "seq_num": 1, "data": {"y": "0", "x": 0}}'],
        [b' event {"descriptor": "run-d", "seq_num": 1, "data": {"y": 1' + b"0" * 400 + b', "x": 0}}'],
        [b' event_page {"descriptor": "run-d", "seq_num": [1, 2], "data": {"y": [0], "x": [0]}}'],
        [
            b' stream_datum {"descriptor": "run-d", "stream_resource": "run-det", "indices": {"start": 0, "stop": 9e9},'
            b' "seq_nums": {"start": 1, "stop": 2}}'
        ],
        [
            b' stream_datum {"descriptor": "run-d", "stream_resource": "run-det", "indices": {"start": 0, "stop": '
            b'1000000}, "seq_nums": {"start": 1, "stop": 1000001}}'
        ],
    ],
)
def test_messages_that_are_no_documents(wrong: list[bytes]) -> None:
    decoder = BlueskyDocumentsDecoder(settings(folder()))
    for one in documents(uri())[:-1]:
        list(decoder.decode(message(one)))
    assert [type(arrival) for arrival in decoder.decode(wrong)] == [Malformed]


def test_pickle_is_not_read() -> None:
    decoder = BlueskyDocumentsDecoder(settings(folder()))
    name, values = documents(uri())[0]
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        (arrival,) = decoder.decode([b" ".join([b"", name.encode(), pickle.dumps(values, protocol)])])
        assert isinstance(arrival, Malformed)
        assert "serializer=msgpack.dumps" in arrival.reason


def test_unknown_positions_are_not_known() -> None:
    scan = [
        (name, {**values, "data": {"y": float("nan"), "x": 0.0}} if name == "event" else values)
        for name, values in documents(uri())
    ]
    for as_json in (False, True):
        assert all(np.isnan(y) for y, _ in positions_m(decoded(scan, as_json=as_json)).values())


def test_documents_of_another_publisher_are_passed_over() -> None:
    decoder = BlueskyDocumentsDecoder(settings(folder(), prefix="ours"))
    begin = documents(uri())[1:7]
    assert not [arrival for one in begin for arrival in decoder.decode(message(one, prefix=b"theirs"))]
    assert len([arrival for one in begin for arrival in decoder.decode(message(one, prefix=b"ours"))]) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"field_x": None},
        {"frames": None},
        {"folder": None},
        {"frames": None, "folder": None, "field_y": None, "field_x": None},
        {"curve_secret": Path("a")},
        {"prefix": "a b"},
    ],
)
def test_what_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings(folder(), **wrong)
