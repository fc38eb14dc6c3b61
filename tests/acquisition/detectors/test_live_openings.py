"""What a live series begins with: its header, the gaps of its detector, what is cut out, the probe, or too little."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from live_scans import HEADER, SCAN, PlainImage, Script, positions, whole_series

from ptychoflow.acquisition.detectors import frame_decoder, live_scan
from ptychoflow.acquisition.detectors.arrivals import (
    Arrival,
    FrameCame,
    PositionsBegan,
    SeriesBegan,
    SeriesEnded,
    SeriesHeader,
)
from ptychoflow.acquisition.detectors.compression import Codec, CompressedImage, encode
from ptychoflow.acquisition.detectors.live_scan import LivePerspective, Opening
from ptychoflow.acquisition.frame_check import usable
from ptychoflow.acquisition.propagation import far_field_intensity
from ptychoflow.acquisition.scan import Ending
from ptychoflow.acquisition.sources import load_probe
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.events import Unplaced
from ptychoflow.streaming.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("together")

FIRST = SCAN.perspective(0)
FRAMES = len(FIRST)


@pytest.mark.parametrize("decoders", [1, 3])
def test_what_is_cut_out_is_what_a_file_would_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoders: int
) -> None:
    monkeypatch.setattr(frame_decoder, "TOGETHER_BYTES", 1)  # so that small frames go to several threads
    damaged, larger = 30, 40
    odd = {damaged: PlainImage(None), larger: PlainImage(np.ones((40, 40), np.uint16), (40, 40))}
    events = [
        (at_s, FrameCame("1", one.number, odd.get(one.number, one.image)) if isinstance(one, FrameCame) else one)
        for at_s, one in whole_series(FIRST)
    ]
    settings = {"preprocess": {"crop_px": [16, 12], "flip_x": True}, "decoders": decoders}
    taken = Script(tmp_path).add_all(events).scan(settings).run()
    columns = 16 - (np.arange(12) - 6)
    for trigger in range(FRAMES):
        expected = FIRST.read(trigger, trigger + 1)[0][8:24, columns] * (trigger not in odd)
        np.testing.assert_array_equal(taken.frames[0][trigger], expected)
    assert sum(f"frame {damaged} is damaged" in text for text in taken.warnings) == 1
    assert sum(f"frame {larger} has (40, 40) pixels" in text for text in taken.warnings) == 1


@pytest.mark.parametrize("together_bytes", [1, 1 << 20])
@pytest.mark.parametrize(
    "preprocess",
    [
        {"crop_px": [16, 12], "flip_y": True},
        {"crop_px": [10, 20], "transpose": True, "centre_px": [12, 20]},
        {"crop_px": [40, 40], "centre_px": [3, 30]},
        {"crop_px": [248, 250], "zero_frequency_in_corner": True},
        {},
    ],
)
def test_what_is_cut_out_of_compressed_frames_is_cut_out_of_whole_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preprocess: dict, together_bytes: int
) -> None:
    """However many are decoded at once, in however many threads, and however few of their blocks."""
    monkeypatch.setattr(frame_decoder, "TOGETHER_BYTES", together_bytes)

    def encoded(one: FrameCame) -> FrameCame:
        pixels = one.image.decode()
        data = encode(np.kron(pixels, np.ones((8, 8), np.uint32)).astype(np.uint32), Codec.BSLZ4)
        return FrameCame(
            "1", one.number, CompressedImage.checked(Codec.BSLZ4, data, (256, 256), "u4", max_frame_px=1 << 20)
        )

    def large(one: FrameCame) -> FrameCame:
        return FrameCame("1", one.number, PlainImage(encoded(one).image.decode(), (256, 256)))

    taken = []
    for place, make in enumerate((encoded, large)):
        events = [(at_s, make(one) if isinstance(one, FrameCame) else one) for at_s, one in whole_series(FIRST)]
        script = Script(tmp_path / str(place)).add_all(events)
        taken.append(script.scan({"preprocess": preprocess, "decoders": 3}).run())
    first, second = taken
    assert list(first.frames[0]) == list(second.frames[0])
    for trigger, frame_of_first in first.frames[0].items():
        np.testing.assert_array_equal(frame_of_first, second.frames[0][trigger])


@pytest.mark.parametrize("mask_is_sent", [True, False])
@pytest.mark.parametrize(
    ("dtype", "marker"),
    [
        ("u2", 2**16 - 1),
        ("u4", 2**32 - 1),
        ("u4", 2**32 - 2),
        ("i2", -(2**15)),
        ("i2", -1),
        ("i4", -(2**31)),
        ("i4", 2**31 - 1),
        ("f4", np.nan),
    ],
)
def test_a_series_begins_whatever_marks_the_gaps_of_its_detector(
    tmp_path: Path, dtype: str, marker: float, mask_is_sent: bool
) -> None:
    gaps = np.zeros((32, 32), bool)
    gaps[15:17] = gaps[:, 3] = True

    def with_gaps(one: Arrival) -> Arrival:
        if isinstance(one, SeriesBegan) and mask_is_sent:
            return SeriesBegan(one.series, replace(HEADER, mask=gaps))
        if not isinstance(one, FrameCame):
            return one
        counts = one.image.decode().astype(dtype)
        counts[gaps] = marker
        return FrameCame(one.series, one.number, PlainImage(counts))

    taken = Script(tmp_path).add_all((at_s, with_gaps(one)) for at_s, one in whole_series(FIRST)).scan().run()
    (frames,) = taken.frames
    assert sorted(frames) == list(range(FRAMES))
    assert usable(np.stack(list(frames.values()))).all()
    for trigger, shown in frames.items():
        np.testing.assert_array_equal(shown[~gaps], FIRST.read(trigger, trigger + 1)[0][~gaps])


@pytest.mark.parametrize("mask_is_sent", [True, False])
def test_gaps_that_outnumber_the_pixels_with_counts_are_no_saturation(tmp_path: Path, mask_is_sent: bool) -> None:
    gaps = np.zeros((128, 128), bool)
    gaps[20:24] = gaps[100:110] = True
    header = replace(HEADER, shape_px=gaps.shape, mask=gaps if mask_is_sent else None)

    def larger(one: Arrival) -> Arrival:
        if isinstance(one, SeriesBegan):
            return SeriesBegan(one.series, header)
        if not isinstance(one, FrameCame):
            return one
        counts = np.zeros(gaps.shape, np.uint16)
        counts[48:80, 48:80] = one.image.decode()
        counts[gaps] = 2**16 - 1
        return FrameCame(one.series, one.number, PlainImage(counts, gaps.shape))

    taken = Script(tmp_path).add_all((at_s, larger(one)) for at_s, one in whole_series(FIRST)).scan().run()
    (frames,) = taken.frames
    assert usable(np.stack(list(frames.values()))).all()
    assert sorted(frames) == list(range(FRAMES))


def test_a_header_that_was_lost_is_made_up_for_by_settings(tmp_path: Path) -> None:
    events = [event for event in whole_series(FIRST) if not isinstance(event[1], SeriesBegan)]
    script = Script(tmp_path).add_all(events)
    with pytest.raises(UserError, match=r"series 1: the detector has no photon energy; give it with --set source.geom"):
        script.scan().run()
    geometry = {"energy_eV": 8800.0, "detector_distance_m": 1.5, "detector_pixel_size_m": 75e-6}
    taken = script.scan({"geometry": geometry}).run()
    taken.assert_shows(FIRST, range(FRAMES))
    assert any("was not announced" in text for text in taken.warnings)


def test_a_lost_header_of_a_later_series_is_as_the_one_before(tmp_path: Path) -> None:
    second = [event for event in whole_series(FIRST, series="2", run="b", begin_s=30) if event[0] != 30.0]
    script = Script(tmp_path).add_all([*whole_series(FIRST), (30.0, PositionsBegan("b", None)), *second])
    taken = script.scan().run()
    taken.assert_shows(FIRST, range(FRAMES), which=1)
    assert taken.endings == [Ending.COMPLETE] * 2


def test_a_lost_header_says_what_the_last_one_said_and_not_the_first(tmp_path: Path) -> None:
    headers = {
        "1": replace(HEADER, angle_deg=0.0, most_frames=20),
        "2": replace(HEADER, angle_deg=10.0, most_frames=60),
    }
    events = []
    for place, series in enumerate(("1", "2", "3", "4")):
        for at_s, one in whole_series(FIRST, series=series, run=f"r{series}", begin_s=30.0 * place):
            if not isinstance(one, SeriesBegan):
                events.append((at_s, one))
            elif series in headers:
                events.append((at_s, replace(one, header=headers[series])))
    live, said = Script(tmp_path).add_all(events).scan().scan, []
    for perspective in live.arriving():
        if perspective is not None:
            said.append((perspective.angle_deg, perspective.most_frames))
            assert sum(len(batch) for batch in perspective.batches(8) if batch is not None) == FRAMES
    live.close()
    assert said == [(0.0, 20), *[(10.0, 60)] * 3]


def test_a_series_with_too_little_is_left_out_and_its_frames_are_counted(tmp_path: Path) -> None:
    dark = [
        (0.0, SeriesBegan("dark", HEADER)),
        (0.0, PositionsBegan("d", None)),
        *((0.1, FrameCame("dark", t, PlainImage(np.zeros((32, 32), np.uint16)))) for t in range(5)),
        (0.1, positions(FIRST, range(5), "d")),
        (0.2, SeriesEnded("dark", Ending.COMPLETE)),
    ]
    taken = Script(tmp_path).add_all([*dark, *whole_series(FIRST, begin_s=30.0)]).scan().run()
    taken.assert_shows(FIRST, range(FRAMES))
    assert taken.ledger.unplaced_because == {Unplaced.SERIES_UNUSABLE: 5}
    assert any("series dark is left out: only 0 of its frames" in text for text in taken.warnings)


@pytest.mark.parametrize(
    ("header", "shape_px", "why"),
    [
        ({"energy_eV": -1.0}, (32, 32), "photon energy"),
        ({"detector_pixel_size_m": (75e-6, np.inf)}, (32, 32), "pixel size"),
        ({}, (1, 1), r"frames of \(1, 1\) pixels"),
    ],
)
def test_a_later_series_that_can_be_no_perspective_is_left_out_and_the_next_one_comes(
    tmp_path: Path, header: dict, shape_px: tuple[int, int], why: str
) -> None:
    def odd(one: Arrival) -> Arrival:
        if isinstance(one, SeriesBegan):
            return SeriesBegan(one.series, replace(HEADER, **header))
        small = isinstance(one, FrameCame) and shape_px != (32, 32)
        return FrameCame("2", one.number, PlainImage(np.ones(shape_px, np.uint16), shape_px)) if small else one

    second = whole_series(SCAN.perspective(1), series="2", run="b", begin_s=30.0)
    third = whole_series(SCAN.perspective(2), series="3", run="c", begin_s=60.0)
    events = [*whole_series(FIRST), *((at_s, odd(one)) for at_s, one in second), *third]
    taken = Script(tmp_path).add_all(events).scan().run()
    taken.assert_shows(FIRST, range(FRAMES))
    taken.assert_shows(SCAN.perspective(2), range(FRAMES), which=1)
    assert len(taken.frames) == 2
    assert taken.ledger.unplaced_because == {Unplaced.SERIES_UNUSABLE: FRAMES}
    (told,) = [text for text in taken.warnings if "series 2 is left out" in text]
    assert re.search(why, told)


def test_a_long_dark_beginning_of_a_later_series_takes_bounded_memory_and_what_follows_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = SCAN.perspective(1)
    later = [
        (at_s, FrameCame("2", one.number, PlainImage(np.zeros((32, 32), np.uint16))))
        if isinstance(one, FrameCame) and one.number < 30
        else (at_s, one)
        for at_s, one in whole_series(second, series="2", run="b", begin_s=30.0)
    ]
    most = 20 * 32 * 32 * 2
    monkeypatch.setattr(live_scan, "LOOK_BYTES", most)
    held, take = [], Opening.take

    def watched(opening: Opening) -> None:
        take(opening)
        held.append(sum(frames.nbytes for frames in opening._frames))

    monkeypatch.setattr(Opening, "take", watched)
    taken = Script(tmp_path).add_all([*whole_series(FIRST), *later]).scan().run()
    assert max(held) <= most
    assert sorted(taken.frames[1]) == list(range(FRAMES))
    np.testing.assert_array_equal(taken.frames[1][30], second.read(30, 31)[0])


def test_the_detectors_mask_and_beam_centre_are_heeded(tmp_path: Path) -> None:
    mask = np.zeros((32, 32), bool)
    mask[3, 4] = True
    header = SeriesHeader(**{**vars(HEADER), "mask": mask, "beam_centre_px": (16.0, 22.0)})
    events = [
        (at_s, SeriesBegan("1", header) if isinstance(one, SeriesBegan) else one) for at_s, one in whole_series(FIRST)
    ]
    taken = Script(tmp_path).add_all(events).scan().run()
    assert all(one[3, 4] == 0 for one in taken.frames[0].values())
    assert any("beam centre is at pixel (16, 22)" in note for note in taken.scan.notes)


@pytest.mark.parametrize(
    "preprocess", [{"transpose": True, "flip_x": True}, {"crop_px": [24, 20], "flip_y": True}, {"crop_px": [36, 36]}]
)
def test_the_probe_that_a_run_has_kept_is_that_of_the_next_run_with_the_same_corrections(
    tmp_path: Path, preprocess: dict
) -> None:
    """One beside its middle and out of focus, of which no axis is like the other."""
    y, x = np.mgrid[:32, :32] - 16.0
    sent = (np.exp(-((y - 2) ** 2 / 20 + (x + 1) ** 2 / 50)) * np.exp(0.02j * (y - 1) ** 2))[None].astype(np.complex64)
    events = whole_series(FIRST)

    def begun(name: str, probe_of: Path) -> LivePerspective:
        settings = {"preprocess": preprocess, "probe": str(probe_of)}
        scan = Script(tmp_path / name).add_all(events).scan(settings, probe=load_probe(probe_of)).scan
        assert scan is not None
        with closing(scan):
            return next(perspective for perspective in scan.arriving() if perspective is not None)

    np.save(tmp_path / "sent.npy", sent)
    first = begun("first", tmp_path / "sent.npy")
    kept = RunFolder(tmp_path / "run").probe
    kept.parent.mkdir()
    np.save(kept, first.probe)
    second = begun("second", tmp_path / "run")
    np.testing.assert_allclose(second.probe, first.probe, atol=1e-5)
    frames = far_field_intensity(sent, np.ones((1, 32, 32), np.complex64))
    published = first._look.perspective.prepare(frames)
    of_probe = far_field_intensity(second.probe, np.ones((1, *published.shape[1:]), np.complex64))
    known = ~np.zeros(published.shape[1:], bool) if second.mask is None else ~second.mask
    np.testing.assert_allclose(of_probe[0][known], published[0][known], atol=1e-3)


def test_a_probe_of_a_run_with_other_frames_is_refused(tmp_path: Path) -> None:
    kept = RunFolder(tmp_path / "run").probe
    kept.parent.mkdir()
    np.save(kept, FIRST.probe)
    settings = {"preprocess": {"crop_px": [24, 24]}, "probe": str(tmp_path / "run")}
    script = Script(tmp_path / "script").add_all(whole_series(FIRST))
    with pytest.raises(UserError, match=r"has \(32, 32\) pixels but frames as they are cut out have \(24, 24\)"):
        script.scan(settings, probe=load_probe(tmp_path / "run")).run()
