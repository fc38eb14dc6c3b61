"""Patches, void frames and reference image of one perspective, whatever the object's source."""

from dataclasses import replace

import numpy as np
import pytest

from ptychoflow.acquisition.retrieval.ground_truth import GroundTruthJob, compute_ground_truth
from ptychoflow.acquisition.retrieval.illumination import illumination_map, well_lit
from ptychoflow.acquisition.retrieval.settings import RetrievalSettings
from ptychoflow.acquisition.scan import ObjectImage
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.messages import GroundTruthSource

ORIGIN_PX = (-40.0, 100.0)
POSITIONS_PX = np.stack(np.meshgrid(np.arange(-12.5, 20, 8), np.arange(128.25, 160, 8), indexing="ij"), -1).reshape(
    -1, 2
)


def block_on_void():
    """Void with one square block, rows 45 to 75 and columns 20 to 50, of phase -0.7."""
    values = np.ones((90, 90), np.complex64)
    values[45:75, 20:50] = 0.9 * np.exp(-0.7j)
    return ObjectImage(values, ORIGIN_PX)


def job_for(recorded, *, target_px=16, positions_px=POSITIONS_PX):
    y, x = np.mgrid[:32, :32] - 16
    probe = np.exp(-(y**2 + x**2) / 50.0)[np.newaxis].astype(np.complex64)
    frames = np.ones((len(positions_px), 32, 32), np.uint16)
    return GroundTruthJob(
        perspective=7,
        frames=frames,
        positions_px=positions_px,
        probe=probe,
        mask=None,
        recorded=recorded,
        target_shape_px=(target_px, target_px),
    )


@pytest.mark.parametrize("source", [GroundTruthSource.RECORDED, GroundTruthSource.SIMULATED])
def test_shapes_types_and_source(source):
    truth = compute_ground_truth(job_for(block_on_void()), RetrievalSettings(source=source))
    count = len(POSITIONS_PX)
    assert truth.amplitude.shape == truth.phase.shape == (count, 16, 16)
    assert truth.amplitude.dtype == truth.phase.dtype == np.float16
    assert truth.void.shape == (count,)
    assert truth.void.dtype == bool
    assert truth.reference_amplitude.dtype == truth.reference_phase.dtype == np.float32
    assert truth.source is source
    assert truth.seconds == 0.0


def test_a_perspective_none_of_whose_frames_can_be_used_is_told():
    job = job_for(block_on_void())
    nothing = replace(job, frames=job.frames[:0], positions_px=job.positions_px[:0])
    for source in ("simulated", "ptychi"):
        with pytest.raises(UserError, match="none of its frames can be used"):
            compute_ground_truth(nothing, RetrievalSettings(source=source))


def test_frames_that_see_too_little_phase_are_void():
    truth = compute_ground_truth(job_for(block_on_void()), RetrievalSettings(source="simulated"))
    y, x = np.mgrid[:90, :90]
    phase = np.where((y >= 45) & (y < 75) & (x >= 20) & (x < 50), -0.7, 0.0)
    for position, void in zip(POSITIONS_PX - ORIGIN_PX, truth.void, strict=True):
        top, left = np.round(position).astype(int) - 8
        mean_square = np.mean(phase[top : top + 16, left : left + 16] ** 2)
        if abs(mean_square - 0.02) > 0.01:
            assert void == (mean_square < 0.02), position
    assert 0 < truth.void.sum() < len(truth.void)


def test_every_patch_threshold_is_the_configured_one():
    settings = RetrievalSettings(source="simulated", void_threshold=0.6)
    assert compute_ground_truth(job_for(block_on_void()), settings).void.all()


def test_the_reference_covers_the_patches_and_lies_where_it_says():
    truth = compute_ground_truth(job_for(block_on_void()), RetrievalSettings(source="simulated"))
    first, last = POSITIONS_PX.min(axis=0) - 8, POSITIONS_PX.max(axis=0) + 8
    assert truth.origin_px == (np.floor(first[0]), np.floor(first[1]))
    assert truth.reference_phase.shape == tuple(np.ceil(last - np.floor(first)).astype(int))
    block = np.argwhere(truth.reference_phase < -0.35) + truth.origin_px
    np.testing.assert_array_equal(block.min(axis=0), np.maximum(np.add(ORIGIN_PX, [45, 20]), truth.origin_px))


@pytest.mark.parametrize("rounding_px", [-1e-9, 0.0, 1e-9])
def test_an_object_may_begin_and_end_with_the_patches_but_for_rounding(rounding_px):
    exact = block_on_void()
    first, last = np.array(ORIGIN_PX) + 16, np.array(ORIGIN_PX) + 90 - 16
    positions_px = np.stack(np.meshgrid(*np.linspace(first, last, 6).T, indexing="ij"), -1).reshape(-1, 2)
    recorded = ObjectImage(exact.values, (ORIGIN_PX[0] + rounding_px, ORIGIN_PX[1] + rounding_px))
    job = job_for(recorded, target_px=32, positions_px=positions_px)
    truth = compute_ground_truth(job, RetrievalSettings(source=GroundTruthSource.SIMULATED))
    assert truth.reference_phase.shape == (90, 90)
    assert truth.origin_px == pytest.approx(ORIGIN_PX)
    np.testing.assert_allclose(truth.reference_phase[50:70, 25:45], -0.7, atol=1e-3)


def test_what_got_no_light_is_void_in_a_recorded_object_and_kept_in_a_simulated_one():
    image = block_on_void()
    image.values[:12] = 3 * np.exp(2j)
    job = job_for(image, positions_px=POSITIONS_PX, target_px=32)
    recorded = compute_ground_truth(job, RetrievalSettings(source="recorded", minimum_illumination=0.1))
    simulated = compute_ground_truth(job, RetrievalSettings(source="simulated", minimum_illumination=0.1))
    np.testing.assert_array_equal(recorded.reference_phase[0], 0.0)
    np.testing.assert_array_equal(recorded.reference_amplitude[0], 1.0)
    np.testing.assert_allclose(simulated.reference_phase[0], 2.0, atol=1e-3)


def test_light_falls_around_the_positions():
    image = ObjectImage(np.ones((60, 50), np.complex64), (10.0, -5.0))
    probe = np.zeros((2, 9, 8), np.complex64)
    probe[0, 4, 4], probe[1, 5, 4] = 2.0, 1.0
    light = illumination_map(image, probe, np.array([[30.0, 15.0], [30.2, 15.0], [69.0, 0.0], [500.0, 0.0]]))
    expected = np.zeros((60, 50))
    expected[20, 20], expected[21, 20], expected[59, 5] = 8.0, 2.0, 4.0
    np.testing.assert_allclose(light, expected)
    assert well_lit(image, probe, np.array([[30.0, 15.0]]), minimum_illumination=0.3).sum() == 1


def test_a_source_without_its_object_is_one_clear_line():
    with pytest.raises(UserError, match=r"perspective 7 carries no recorded object: set retrieval\.source to ptychi"):
        compute_ground_truth(job_for(None), RetrievalSettings(source="recorded"))


def test_an_object_that_is_too_small_is_one_clear_line():
    small = ObjectImage(np.ones((60, 90), np.complex64), ORIGIN_PX)
    with pytest.raises(
        UserError, match=r"perspective 7: the patch of frame 16 leaves the object image by 15\.5 px; use a smaller"
    ):
        compute_ground_truth(job_for(small, target_px=32), RetrievalSettings(source="recorded"))


def test_tike_that_is_not_installed_is_one_clear_line():
    with pytest.raises(UserError, match="tike"):
        compute_ground_truth(job_for(None), RetrievalSettings(source="tike"))
