"""Frames, phase retrieval and patches agree on which way is up.

The specimen is asymmetric and the scan is on sub-pixel positions that are not centred, so a mirrored, transposed,
conjugated or half-pixel-shifted step anywhere between the forward model and the patches would show.
"""

from functools import cache

import numpy as np
import pytest
from scipy import ndimage
from skimage.registration import phase_cross_correlation

from ptychoflow.acquisition.propagation import far_field_intensity
from ptychoflow.acquisition.retrieval.gauge import find_gauge
from ptychoflow.acquisition.retrieval.ground_truth import GroundTruthJob, compute_ground_truth
from ptychoflow.acquisition.retrieval.patches import cut_patches
from ptychoflow.acquisition.retrieval.settings import Algorithm, RetrievalSettings
from ptychoflow.acquisition.scan import ObjectImage

ORIGIN_PX = (-70.0, 25.0)


def asymmetric_object(shape_px=(150, 150)):
    """An L, an F and a slanted wedge of unequal phases on void."""
    values = np.ones(shape_px, complex)
    for rows, columns, phase in [
        ((35, 110), (40, 50), -0.9),
        ((98, 110), (50, 88), -0.9),
        ((35, 44), (64, 104), -0.5),
        ((35, 84), (64, 72), -0.5),
        ((56, 63), (72, 92), -0.5),
    ]:
        values[rows[0] : rows[1], columns[0] : columns[1]] = (1 + 0.12 * phase) * np.exp(1j * phase)
    y, x = np.mgrid[: shape_px[0], : shape_px[1]]
    wedge = (x > 96) & (y > 50) & (y - 50 < 0.9 * (x - 80)) & (x < 112) & (y > x - 40)
    values[wedge] = 0.85 * np.exp(-1.2j)
    smooth = ndimage.gaussian_filter(values.real, 0.7) + 1j * ndimage.gaussian_filter(values.imag, 0.7)
    return ObjectImage(smooth.astype(np.complex64), ORIGIN_PX)


def asymmetric_probe(size_px):
    y, x = np.mgrid[:size_px, :size_px] - size_px // 2
    spread = size_px / 7
    envelope = np.exp(-(y**2 + x**2 + 0.5 * x * y) / (2 * spread**2))
    return (envelope * np.exp(1j * (0.02 * y**2 + 0.012 * x**2 + 0.05 * x)))[np.newaxis].astype(np.complex64)


@cache
def measured(size_px):
    """Frames of the asymmetric object: positions (n, 2), counts (n, y, x) with shot noise."""
    rng = np.random.default_rng(5)
    grid = np.stack(np.meshgrid(np.arange(35, 112, 7.0), np.arange(35, 112, 7.0), indexing="ij"), -1).reshape(-1, 2)
    positions = grid + rng.uniform(-2, 2, grid.shape) + ORIGIN_PX
    probe = asymmetric_probe(size_px)
    probe *= np.sqrt(2e6 / np.sum(np.abs(probe) ** 2))
    patches = cut_patches(asymmetric_object(), positions, (size_px, size_px))
    return positions, rng.poisson(far_field_intensity(probe, patches)).astype(np.uint32)


def job_of(size_px, *, recorded=None, target_px=32):
    positions, frames = measured(size_px)
    return GroundTruthJob(
        perspective=0,
        frames=frames,
        positions_px=positions,
        probe=asymmetric_probe(size_px),
        mask=None,
        recorded=recorded,
        target_shape_px=(target_px, target_px),
    )


@cache
def retrieved(size_px):
    return compute_ground_truth(job_of(size_px), RetrievalSettings(epochs=25, batch_size=20))


def true_patches(size_px, target_px=32):
    image = asymmetric_object()
    gauged = find_gauge(image.values, np.ones(image.values.shape, bool)).apply(image.values)
    return cut_patches(ObjectImage(gauged, ORIGIN_PX), measured(size_px)[0], (target_px, target_px))


def correlation(first, second):
    return np.corrcoef(first.ravel().astype(float), second.ravel().astype(float))[0, 1]


@pytest.mark.parametrize("size_px", [48, 49])
def test_patches_show_the_true_object_and_none_of_its_mirror_images(size_px):
    truth, found = true_patches(size_px), retrieved(size_px)
    assert correlation(np.angle(truth), found.phase) > 0.97
    assert correlation(np.abs(truth), found.amplitude) > 0.8
    wrong = {
        "upside down": np.angle(truth)[:, ::-1],
        "left for right": np.angle(truth)[:, :, ::-1],
        "rotated by half a turn": np.angle(truth)[:, ::-1, ::-1],
        "transposed": np.angle(truth).transpose(0, 2, 1),
        "conjugated": -np.angle(truth),
    }
    for name, phase in wrong.items():
        assert correlation(phase, found.phase) < 0.6, name


@pytest.mark.parametrize("size_px", [48, 49])
def test_reference_lies_on_the_true_object_to_a_tenth_of_a_pixel(size_px):
    found = retrieved(size_px)
    height, width = found.reference_phase.shape
    centre = np.add(found.origin_px, [height // 2, width // 2])
    truth = np.angle(cut_patches(asymmetric_object(), centre[np.newaxis], (height, width))[0])
    shift, _, _ = phase_cross_correlation(truth, found.reference_phase, upsample_factor=50, normalization=None)
    assert np.abs(shift).max() < 0.1
    assert correlation(truth, found.reference_phase) > 0.97


def test_patches_lie_on_the_true_patches_to_a_tenth_of_a_pixel():
    truth, found = np.angle(true_patches(48)), retrieved(48).phase.astype(float)
    contrast = truth.std(axis=(1, 2))
    strong = np.argsort(contrast)[-12:]
    shifts = [
        phase_cross_correlation(truth[i], found[i], upsample_factor=50, normalization=None)[0] for i in strong.tolist()
    ]
    assert np.abs(np.median(shifts, axis=0)).max() < 0.1


def test_the_test_itself_notices_half_a_pixel():
    found = retrieved(48)
    height, width = found.reference_phase.shape
    centre = np.add(found.origin_px, [height // 2 + 0.5, width // 2])
    truth = np.angle(cut_patches(asymmetric_object(), centre[np.newaxis], (height, width))[0])
    shift, _, _ = phase_cross_correlation(truth, found.reference_phase, upsample_factor=50, normalization=None)
    assert abs(abs(shift[0]) - 0.5) < 0.1


def test_a_recorded_object_gives_the_same_patches_as_the_true_one():
    settings = RetrievalSettings(source="recorded")
    image = asymmetric_object()
    y, x = np.mgrid[: image.values.shape[0], : image.values.shape[1]]
    moved = ObjectImage((image.values * 2.5 * np.exp(1j * (0.7 + 0.05 * y - 0.03 * x))).astype(np.complex64), ORIGIN_PX)
    found = compute_ground_truth(job_of(48, recorded=moved), settings)
    truth = true_patches(48)
    np.testing.assert_allclose(found.phase, np.angle(truth), atol=3e-3)
    np.testing.assert_allclose(found.amplitude, np.abs(truth), atol=3e-3)
    assert found.seconds == 0.0


@pytest.mark.parametrize("algorithm", [Algorithm.RPIE, Algorithm.DM])
def test_the_other_algorithms_agree(algorithm):
    found = compute_ground_truth(job_of(48), RetrievalSettings(algorithm=algorithm, epochs=25, batch_size=10))
    assert correlation(np.angle(true_patches(48)), found.phase) > 0.9
