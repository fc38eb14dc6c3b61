"""Repeated exposures of a position: found, said, counted once in the estimate, averaged for phase retrieval."""

from dataclasses import replace

import numpy as np
import pytest
from asymmetric_scan import OBJECT_PIXEL_M, RIGHT, N, correlation, frames, positions_px, translation, write_scan
from scan_files import opened

from ptychoflow.acquisition.inspect import inspect_scan
from ptychoflow.acquisition.position_check import step_px
from ptychoflow.acquisition.probe_estimate import Turn
from ptychoflow.acquisition.repeats import SAME_PLACE_PX, find_places
from ptychoflow.acquisition.retrieval.ground_truth import GroundTruthJob, compute_ground_truth
from ptychoflow.acquisition.retrieval.settings import RetrievalSettings

SAID = (
    "144 of 288 frames were taken where another one was before: exposures of one position are averaged for phase "
    "retrieval, and count once where the probe is estimated"
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "scan.cxi"


def test_places_are_those_of_the_first_exposures_within_a_tolerance():
    near = 0.9 * SAME_PLACE_PX
    places = find_places(np.array([(0.0, 0.0), (5.0, 0.0), (0.0, near), (0.0, 2 * near), (5.0, -near), (0.0, 0.0)]))
    assert places.of_frame.tolist() == [0, 1, 0, 2, 1, 0]
    assert places.first.tolist() == [0, 1, 3]
    assert places.repeats == 3
    counts = np.array([1, 10, 4, 7, 30, 4], np.uint16)[:, np.newaxis, np.newaxis]
    assert places.average_frames(counts).ravel().tolist() == [3.0, 20.0, 7.0]
    means = places.average_positions(np.array([(0.0, 0.0), (5.0, 0.0), (0.0, 3.0), (1.0, 1.0), (5.0, 2.0), (3.0, 0.0)]))
    assert means.tolist() == [[1.0, 1.0], [5.0, 1.0], [1.0, 1.0]]


def test_a_largest_count_is_averaged_without_overflow():
    counts = np.full((2, 1, 1), 65535, np.uint16)
    assert find_places(np.zeros((2, 2))).average_frames(counts).item() == 65535.0


def test_each_position_exposed_twice_gives_what_one_exposure_gives(path):
    """Twice the same frames, as first all and then all again: the object is the same, the patches are twice those."""
    single = GroundTruthJob(
        perspective=0,
        frames=frames(),
        positions_px=positions_px(),
        probe=opened(write_scan(path)).perspective(0).probe,
        mask=None,
        recorded=None,
        target_shape_px=(N // 2, N // 2),
    )
    double = replace(single, frames=np.tile(frames(), (2, 1, 1)), positions_px=np.tile(positions_px(), (2, 1)))
    settings = RetrievalSettings(epochs=2, batch_size=10)
    once, twice = (compute_ground_truth(job, settings) for job in (single, double))
    np.testing.assert_array_equal(twice.reference_phase, once.reference_phase)
    np.testing.assert_array_equal(twice.reference_amplitude, once.reference_amplitude)
    np.testing.assert_array_equal(twice.phase, np.tile(once.phase, (2, 1, 1)))


@pytest.mark.parametrize("jitter_px", [0.0, 0.4 * SAME_PLACE_PX])
def test_two_noisy_exposures_are_one_frame_of_the_scan(path, jitter_px):
    """Half the light each, as a detector's bursts have, at positions as they were read back."""
    rng = np.random.default_rng(3)
    first = rng.binomial(frames(), 0.5)
    halves = np.stack([first, frames() - first], axis=1).reshape(-1, N, N)
    where_m = np.repeat(translation(), 2, axis=0)
    where_m[:, :2] += rng.uniform(-jitter_px, jitter_px, (288, 2)) * OBJECT_PIXEL_M
    scan = opened(write_scan(path, halves, positions_m=where_m))
    assert SAID in scan.notes
    perspective = scan.perspective(0)
    fit = perspective.orientation().fits[Turn.NONE]
    assert fit.clear
    assert fit.diameter == pytest.approx(0.46, abs=0.03)
    gathered = perspective.gather_frames()
    assert find_places(gathered.positions_px).repeats == 0
    (described,) = inspect_scan(scan).perspectives
    assert described.step_px == pytest.approx(step_px(positions_px()), abs=0.1)
    assert correlation(perspective) > RIGHT


def test_an_exposure_that_shows_nothing_does_not_take_its_position_along(path):
    """Every first one was taken with a closed shutter."""
    counts = np.repeat(frames(), 2, axis=0)
    counts[::2] = 0
    scan = opened(write_scan(path, counts, positions_m=np.repeat(translation(), 2, axis=0)))
    assert not any("uncertain" in note for note in scan.notes)
    assert correlation(scan.perspective(0)) > RIGHT


def test_a_scan_without_repeats_says_nothing_of_them(path):
    assert not any("another one was before" in note for note in opened(write_scan(path)).notes)
