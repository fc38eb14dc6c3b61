"""Where shadows do not tell how frames lie, a short phase retrieval does: a probe in focus, and the measured star."""

from contextlib import closing
from dataclasses import replace
from functools import cache

import h5py
import numpy as np
import psutil
import pytest
import torch
from asymmetric_scan import frames, frames_lit_by, grid_px, probe_of_lens, translation, write_scan
from scan_files import DETECTOR, FRAMES, SOURCE, TRANSLATION, opened
from test_orientation_check import turned

from ptychoflow.acquisition.orientation import Orientation
from ptychoflow.acquisition.probe_estimate import Fit, Turn
from ptychoflow.acquisition.retrieval import orientation_trial
from ptychoflow.acquisition.retrieval.orientation_trial import decide_orientation, take_part
from ptychoflow.acquisition.retrieval.trial_messages import write_part
from ptychoflow.acquisition.source_settings import PreprocessSettings, ReplaySettings
from ptychoflow.acquisition.sources import open_scan
from ptychoflow.streaming.errors import UserError
from ptychoflow.workflow.cli import run_command_line

WHERE_PX = grid_px(4.0)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "scan.cxi"


def part_of(perspective):
    return take_part(perspective, perspective.gather_frames())[0]


@cache
def focused():
    """Frames of the asymmetric scan with its probe in focus: they hold no shadows."""
    return frames_lit_by(probe_of_lens(0.07, defocus=0.0), WHERE_PX, seed=9)


def decided(perspective, found=None):
    steps = []
    found = found or perspective.orientation()
    result = decide_orientation(perspective, found, on_progress=lambda done, of: steps.append((done, of)))
    assert steps[0][0] == 0
    assert steps[-1][0] == steps[-1][1] > 0
    return result


def as_if_shadows_told_nothing(found):
    fits = {turn: Fit(fit.diameter, 0.01, 0.01, 0.01) for turn, fit in found.fits.items()}
    return Orientation(fits, found.settings)


def test_the_command_decides_for_a_probe_in_focus(path, capfd):
    """The command reads in a copy of this process, in which torch may have begun threads: the trial begins afresh."""
    torch.ones(512, 512) @ torch.ones(512, 512)
    write_scan(path, turned(focused(), True, False, False), positions_m=translation(WHERE_PX))
    assert any("ptychoflow inspect --orientation" in note for note in opened(path).notes)
    assert run_command_line(["inspect", str(path), "--orientation"]) == 0
    printed = capfd.readouterr().out
    assert "Error: of frames predicted by a short phase retrieval" in printed
    assert "Recommended: --set source.preprocess.transpose=true" in printed
    assert "or, the same: --set source.preprocess.swap_positions=true" in printed
    assert "both axes mirrored" in printed


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("LIMIT_S", 0.0, "the short phase retrievals did not end within 0 s"),
        ("MODULE", "ptychoflow.streaming.errors", "the process of the short phase retrievals is gone: it ended"),
    ],
)
def test_a_trial_that_does_not_end_is_one_line_above_the_table(path, capfd, monkeypatch, name, value, said):
    monkeypatch.setattr(orientation_trial, name, value)
    write_scan(path, focused(), positions_m=translation(WHERE_PX))
    others = psutil.Process().children(recursive=True)
    assert run_command_line(["inspect", str(path), "--orientation"]) == 0
    before, table = capfd.readouterr().out.split("Agreement of the shadows")
    assert sum(line.startswith(f"orientation: {said}") for line in before.splitlines()) == 1
    assert "The frames do not tell their orientation clearly" in table
    assert set(psutil.Process().children(recursive=True)) <= set(others)


def test_a_retrieval_that_fails_is_said(path, monkeypatch):
    """Whatever the reason; here no frame is left to retrieve from."""

    def write_nothing_left_out(part, folder):
        write_part(replace(part, left_out=np.ones(len(part.frames), bool)), folder)

    monkeypatch.setattr(orientation_trial, "write_part", write_nothing_left_out)
    perspective = opened(write_scan(path, focused(), positions_m=translation(WHERE_PX))).perspective(0)
    with pytest.raises(UserError, match="orientation: a short phase retrieval failed: ValueError: "):
        decided(perspective)


def test_a_probe_in_the_file_helps(path):
    write_scan(path, turned(focused(), False, False, True), positions_m=translation(WHERE_PX))
    with h5py.File(path, "a") as file:
        file[f"{SOURCE}/illumination"] = probe_of_lens(0.07, defocus=0.0).astype(np.complex64)
    scan = opened(path)
    assert any("lets a short phase retrieval decide" in note for note in scan.notes)
    found = decided(scan.perspective(0))
    assert found.recommended is Turn.MIRRORED
    assert found.errors[Turn.MIRRORED] < 0.5 * min(error for turn, error in found.errors.items() if turn.value[1] == 1)


@pytest.mark.parametrize("places", [144, 20])
def test_what_phase_retrieval_does_not_tell_is_said(path, monkeypatch, places):
    monkeypatch.setattr(orientation_trial, "MORE_EPOCHS", 10)
    rng = np.random.default_rng(0)
    noise = rng.poisson(frames().mean(axis=0), frames().shape)
    perspective = opened(write_scan(path, noise[:places], positions_m=translation()[:places])).perspective(0)
    if places == 20:
        with pytest.raises(UserError, match="only 20 frames about one place can be used"):
            decided(perspective)
        return
    found = decided(perspective)
    assert set(found.errors) == set(Turn)
    assert found.recommended is None
    assert found.note() is not None


def test_repeated_exposures_are_taken_once(path):
    """Ten exposures at each of the first places: as many frames, but hardly an area."""
    counts = np.concatenate([np.repeat(frames()[:10], 10, axis=0), frames()[10:]])
    positions = np.concatenate([np.repeat(translation()[:10], 10, axis=0), translation()[10:]])
    part = part_of(opened(write_scan(path, counts, positions_m=positions)).perspective(0))
    assert len(np.unique(part.positions_px, axis=0)) == len(part.positions_px) == 49
    kept = part.positions_px[~part.left_out]
    assert part.left_out.any()
    assert (part.positions_px[part.left_out] >= kept.min(axis=0)).all()
    assert (part.positions_px[part.left_out] <= kept.max(axis=0)).all()


def test_large_frames_are_cut_about_the_beam(path):
    large = np.pad(frames(), ((0, 0), (96, 96), (96, 96)))
    perspective = opened(write_scan(path, large, positions_m=translation() / 4)).perspective(0)
    part = part_of(perspective)
    assert part.frames.shape == (49, 128, 128)
    np.testing.assert_array_equal(part.frames[:, 32:96, 32:96].sum(axis=(1, 2)), part.frames.sum(axis=(1, 2)))
    # A pixel of the object is as much larger as the frame is smaller.
    steps = np.ptp(part.positions_px, axis=0)
    assert (steps < 0.6 * np.ptp(perspective.positions_px, axis=0)).all()


def test_orientations_near_each_other_alone_are_tried():
    clear, near, far = Fit(0.5, 0.6, 0.1, 0.1), Fit(0.5, 0.5, 0.1, 0.1), Fit(0.5, 0.1, 0.1, 0.1)
    turns = dict(zip(Turn, (near, clear, far, far), strict=True))
    found = Orientation(turns, PreprocessSettings())
    assert found.recommended is None
    assert found.near_each_other == [Turn.NONE, Turn.MIRRORED]
    assert replace(found, errors={Turn.NONE: 0.01, Turn.MIRRORED: 0.02}).recommended is Turn.NONE
    assert replace(found, errors={Turn.NONE: 0.019, Turn.MIRRORED: 0.02}).recommended is None
    unclear = Orientation({turn: replace(fit, other_sign=1.0) for turn, fit in turns.items()}, PreprocessSettings())
    assert unclear.near_each_other == list(Turn)


@pytest.mark.parametrize(
    ("turn", "swap", "signs", "expected"),
    [
        ((True, False, False), False, (1, -1), Turn.EXCHANGED_MIRRORED),
    ],
)
def test_measured_star_by_phase_retrieval_alone(measured_data, path, monkeypatch, turn, swap, signs, expected):
    monkeypatch.setattr(orientation_trial, "MOST_FRAMES", 30)
    with closing(open_scan(ReplaySettings(path=measured_data / "siemens_star.cxi"))) as scan:
        first = scan.perspective(0)
        middle = np.argsort(np.linalg.norm(first.positions_px - first.positions_px.mean(axis=0), axis=1))[:90]
        counts = np.array([first.read(index, index + 1)[0] for index in middle.tolist()])
        where_m = first.positions_px[middle] * first.geometry.object_pixel_size_m
        where_m = (where_m[:, ::-1] if swap else where_m) * signs
        with h5py.File(path, "w") as file:
            file["cxi_version"] = 160
            file[FRAMES] = turned(counts, *turn)
            file[TRANSLATION] = np.column_stack([where_m[:, ::-1], np.zeros(len(where_m))])
            file[f"{DETECTOR}/distance"] = first.geometry.detector_distance_m
            file[f"{DETECTOR}/y_pixel_size"], file[f"{DETECTOR}/x_pixel_size"] = first.geometry.detector_pixel_size_m
            file[f"{SOURCE}/energy"] = first.geometry.energy_eV * 1.602176634e-19
    perspective = opened(path).perspective(0)
    found = decided(perspective, as_if_shadows_told_nothing(perspective.orientation()))
    assert found.recommended is expected
