"""How frames lie to positions, where the beam is, and how sure the estimated probe is: told from the frames alone."""

import io
import itertools
import json
import re
from contextlib import closing

import h5py
import numpy as np
import pytest
from asymmetric_scan import RIGHT, N, correlation, frames, positions_px, translation, write_scan
from rich.console import Console
from scan_files import DETECTOR, FRAMES, SOURCE, TRANSLATION, opened, refusal

from ptychoflow.acquisition.binning import MAX_SIDE_PX
from ptychoflow.acquisition.probe_estimate import (
    Fit,
    GatheredFrames,
    Turn,
    choose_frames,
    diameter_of,
    find_fits,
    probe_of_fit,
)
from ptychoflow.acquisition.source_settings import ReplaySettings
from ptychoflow.acquisition.sources import open_scan

EIGHT = list(itertools.product((False, True), repeat=3))
"""Transposed, then mirrored along y, along x."""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "scan.cxi"


def settings_of(options: str) -> dict[str, object]:
    """Return settings of [source.preprocess] from options as they are printed."""
    found = re.findall(r"--set source\.preprocess\.(\w+)=(\S+?)[;,]?(?:\s|$)", options)
    assert found
    return {name: json.loads(value) for name, value in found}


def recommended(scan):
    """Return the settings that are recommended for the frames, and those for the positions."""
    note = next((note for note in scan.notes if "do not fit together" in note), None)
    if note is None:
        return {}, {}
    frames_part, positions_part = note.split(": --set", 1)[1].split(", or ")
    return settings_of("--set" + frames_part), settings_of(positions_part)


def turned(counts, transpose, flip_y, flip_x):
    """Return frames about the pixel of zero frequency."""
    if transpose:
        counts = counts.swapaxes(1, 2)
    for axis, flip in ((1, flip_y), (2, flip_x)):
        if flip:
            counts = np.flip(counts, axis)
            if counts.shape[axis] % 2 == 0:
                counts = np.roll(counts, 1, axis)
    return counts


@pytest.mark.parametrize("turn", EIGHT)
def test_frames_that_lie_otherwise_are_told_and_put_right(path, turn):
    scan = opened(write_scan(path, turned(frames(), *turn)))
    told, for_positions = recommended(scan)
    transpose, flip_y, flip_x = turn
    distinguishable = transpose or flip_y != flip_x
    assert bool(told) == distinguishable == bool(for_positions)
    assert told.get("transpose", False) == transpose
    for settings in (told, for_positions) if distinguishable else ():
        right = opened(path, preprocess=settings)
        assert recommended(right) == ({}, {})
        assert right.perspective(0).orientation().recommended is Turn.NONE
    if turn == (False, False, True):
        assert told == {"flip_x": True}
        assert correlation(opened(path, preprocess=told).perspective(0)) > RIGHT
    if turn == (True, False, False):
        assert told == {"transpose": True}
        assert for_positions == {"swap_positions": True}
        assert correlation(opened(path, preprocess=told).perspective(0)) > RIGHT


@pytest.mark.parametrize("signs", [(1, -1), (-1, 1), (1, 1)])
@pytest.mark.parametrize("swap", [False, True])
def test_positions_that_lie_otherwise_are_told_on_top_of_any_setting(path, swap, signs):
    positions = translation()[:, [1, 0, 2]] if swap else translation()
    write_scan(path, turned(frames(), True, False, True), positions_m=positions * (*signs[::-1], 1))
    first = {"transpose": True, "flip_y": True}
    told, for_positions = recommended(opened(path, preprocess=first))
    for change in (told, for_positions):
        assert opened(path, preprocess=first | change).perspective(0).orientation().recommended is Turn.NONE


def test_table_names_eight_orientations_and_what_cannot_be_told(path):
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(opened(write_scan(path, turned(frames(), False, False, True))).perspective(0).orientation())
    text = console.export_text()
    assert len(re.findall(r"0\.\d{3}", text)) == 8
    assert "Recommended: --set source.preprocess.flip_x=true" in text
    assert "or, the same: --set source.preprocess.position_sign_x=-1" in text
    assert "both axes mirrored" in text


def test_measured_star_in_all_ways(measured_data):
    with closing(open_scan(ReplaySettings(path=measured_data / "siemens_star.cxi"))) as scan:
        first = scan.perspective(0)
        counts, where = first.read(0, len(first)), first.positions_px
    for turn in EIGHT:
        lying = turned(counts, *turn)
        for swap, signs in ((False, (1, 1)), (True, (1, 1)), (False, (-1, 1)), (False, (1, -1)), (True, (-1, 1))):
            gathered = GatheredFrames()
            moved = (where[:, ::-1] if swap else where) * signs
            for index in choose_frames(where)[::2].tolist():
                gathered.add(lying[index], moved[index])
            fits = find_fits(gathered)
            best = max(fits, key=lambda one: fits[one].score)
            assert fits[best].clear
            assert fits[best].score > 2 * max(fit.score for one, fit in fits.items() if one is not best)
            exchanged, mirrored = turn[0] != swap, (turn[1] != turn[2]) != (signs != (1, 1))
            assert best.value == (exchanged, -1 if mirrored else 1), (turn, swap, signs)


def test_beam_off_the_middle_is_told_and_put_right(path):
    scan = opened(write_scan(path, np.roll(frames(), (9, -6), (1, 2))))
    note = next(note for note in scan.notes if "off the middle" in note)
    assert "by (9, -6) px (y, x): --set 'source.preprocess.centre_px=[41,26]'" in note
    assert any("The estimated probe is uncertain" in one for one in scan.notes)
    right = opened(path, preprocess={"centre_px": [41, 26]})
    assert not any("off the middle" in one or "uncertain" in one for one in right.notes)
    assert correlation(right.perspective(0)) > RIGHT


def test_zero_frequency_in_the_corner_is_told_and_put_right(path):
    mask = np.zeros((N, N), "u4")
    mask[0, 1] = 1
    write_scan(path, np.fft.ifftshift(frames(), axes=(1, 2)), mask=mask)
    assert any("zero_frequency_in_corner=true" in note for note in opened(path).notes)
    right = opened(path, preprocess={"zero_frequency_in_corner": True})
    assert not any("corner" in note for note in right.notes)
    assert np.argwhere(right.perspective(0).mask).tolist() == [[N // 2, N // 2 + 1]]
    assert correlation(right.perspective(0)) > RIGHT


def test_a_stored_probe_tells_whether_both_axes_are_mirrored(path):
    """What no shadow tells: the probe's defocus has a sign, and the frames' shadows have one for each half turn."""
    assert not any("out of focus" in note for note in opened(write_scan(path, with_probe=True)).notes)
    both = path.with_name("both.cxi")
    scan = opened(write_scan(both, turned(frames(), False, True, True), with_probe=True))
    assert scan.perspective(0).orientation().turned_by_180
    note = next(note for note in scan.notes if "to the other side than the frames show" in note)
    assert "--set source.probe=ignore" in note
    told = settings_of(note)
    assert told.pop("probe", "ignore") == "ignore"
    assert told == {"flip_y": True, "flip_x": True}
    right = opened(both, preprocess=told)
    assert right.perspective(0).orientation().turned_by_180 is False
    assert not any("out of focus" in note for note in right.notes)
    assert correlation(right.perspective(0)) > RIGHT


def test_a_probe_of_the_other_sign_can_be_left_out(path):
    with h5py.File(write_scan(path, with_probe=True), "a") as file:
        stored = file[f"{SOURCE}/illumination"]
        stored[...] = stored[...].conj()
    assert any("to the other side than the frames show" in note for note in opened(path).notes)
    without = opened(path, probe="ignore")
    assert not any("out of focus" in note for note in without.notes)
    assert correlation(without.perspective(0)) > RIGHT


def printed(orientation) -> list[str]:
    console = Console(width=1000, record=True, file=io.StringIO())
    console.print(orientation, soft_wrap=True)
    return console.export_text().splitlines()


@pytest.mark.parametrize("turn", EIGHT)
def test_with_a_stored_probe_all_eight_are_told_apart(path, turn):
    write_scan(path, turned(frames(), *turn), with_probe=True)
    lines = printed(opened(path).perspective(0).orientation())
    told = next((line for line in lines if line.startswith("Recommended: ")), "")
    both = next((line for line in lines if "If both axes are mirrored: " in line), "").partition("mirrored: ")[2]
    options = told or both.partition("; if ")[0]
    if told:
        same = next(line for line in lines if line.startswith("or, the same: "))
        (note,) = (note for note in opened(path).notes if "do not fit together" in note)
        assert f"{told.removeprefix('Recommended: ')}, or {same.removeprefix('or, the same: ')};" in note
        moved = opened(path, preprocess=settings_of(same)).perspective(0).orientation()
        assert (moved.recommended, moved.turned_by_180) == (Turn.NONE, False)
    right = opened(path, preprocess=settings_of(options) if options else {})
    settings = right.perspective(0).orientation().settings
    assert (settings.transpose, *_flips(turn)) == (turn[0], settings.flip_y, settings.flip_x)
    assert right.perspective(0).orientation().turned_by_180 is False
    assert printed(right.perspective(0).orientation())[-2:] == [
        "Frames and positions fit together as they are.",
        "Both axes mirrored would not fit: the probe is out of focus to the side that the frames show.",
    ]


def _flips(turn):
    """The settings that undo "transpose, then mirror" by transposing first: the axes are exchanged."""
    transpose, flip_y, flip_x = turn
    return (flip_x, flip_y) if transpose else (flip_y, flip_x)


@pytest.mark.parametrize("diameter", [-0.7, -0.3, 0.14, 0.5])
def test_the_defocus_of_a_probe_is_that_of_its_fit(diameter):
    gathered = GatheredFrames()
    for position, frame in zip(positions_px()[:20], frames()[:20], strict=True):
        gathered.add(frame, position)
    probe = probe_of_fit(gathered, Fit(diameter, 1.0, 0.0, 0.0)).probe
    assert diameter_of(probe) == pytest.approx(diameter, rel=0.1)
    beside_the_middle = np.roll(probe, (3, -5), (1, 2))
    assert diameter_of(beside_the_middle) == pytest.approx(diameter, rel=0.1)
    assert diameter_of(np.abs(probe).astype(np.complex64) * 0) is None
    assert diameter_of(probe_of_fit(gathered, Fit(0.05, 1.0, 0.0, 0.0)).probe) is None


def test_the_measured_probe_is_out_of_focus_as_its_frames_show(measured_data):
    with closing(open_scan(ReplaySettings(path=measured_data / "siemens_star.cxi"))) as scan:
        assert scan.perspective(0).orientation().turned_by_180 is False


def test_uncertain_probe_is_said(path):
    noise = np.random.default_rng(0).poisson(frames().mean(axis=0), frames().shape)
    assert any("The estimated probe is uncertain" in note for note in opened(write_scan(path, noise)).notes)
    assert not any("uncertain" in note for note in opened(write_scan(path)).notes)


def test_near_field_without_a_probe_is_refused_after_the_estimate(path):
    write_scan(path)
    with h5py.File(path, "a") as file:
        # The same object pixel, of a detector whose pixels are so fine that the far field is farther away.
        for name in ("x_pixel_size", "y_pixel_size"):
            file[f"{DETECTOR}/{name}"][...] = 0.5e-6
        file[f"{DETECTOR}/distance"][...] = 2.0 / 150
    assert "the Fresnel number of the estimated probe is" in refusal(path)


def test_repeated_exposures_count_once(path):
    counts, positions = np.repeat(frames(), 2, axis=0), np.repeat(translation(), 2, axis=0)
    noise = np.random.default_rng(1).poisson(counts)
    scan = opened(write_scan(path, noise, positions_m=positions))
    assert any("with a diameter of 46%" in note for note in scan.notes)
    fit = scan.perspective(0).orientation().fits[Turn.NONE]
    assert fit.clear


def test_large_frames_are_binned_for_the_estimate():
    gathered = GatheredFrames()
    for position, frame in zip(positions_px()[:60], frames()[:60], strict=True):
        large = np.kron(frame, np.ones((8, 8))) / 64
        gathered.add(large, position * 8)
    shadows, lens = gathered.shadows()
    assert shadows.shape == (60, MAX_SIDE_PX, MAX_SIDE_PX) == (60, *lens.shape)
    fit = find_fits(gathered)[Turn.NONE]
    assert fit.clear
    small = GatheredFrames()
    for position, frame in zip(positions_px()[:60], frames()[:60], strict=True):
        small.add(frame, position)
    assert abs(fit.diameter) == pytest.approx(abs(find_fits(small)[Turn.NONE].diameter), abs=0.06)
    assert probe_of_fit(gathered, fit).probe.shape == (1, 512, 512)


def test_few_large_frames_are_read_for_the_estimate():
    assert len(choose_frames(positions_px())) > 100
    assert 4 <= len(choose_frames(positions_px(), most=16)) <= 16
    gathered = GatheredFrames()
    for index in choose_frames(positions_px(), most=32).tolist():
        gathered.add(frames()[index], positions_px()[index])
    fit = find_fits(gathered)[Turn.NONE]
    assert fit.clear
    assert fit.diameter == pytest.approx(0.46, abs=0.1)


def test_large_frames_are_said_before_the_work(path, caplog):
    with h5py.File(write_scan(path), "a") as file:
        del file[FRAMES], file[TRANSLATION]
        file.create_dataset(FRAMES, (4, 1600, 1600), "u2", chunks=(1, 1600, 1600), fillvalue=1)
        file[TRANSLATION] = translation()[:4] / 25
    scan = opened(path)
    assert any("Frames of 1600 × 1600 px take much memory" in note for note in scan.notes)
    assert "crop_px" in caplog.text
