"""Image quality against scikit-image, and what happens where it is not defined."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from ptychoflow.inference_edge.stitching.mosaic import StitchedImage
from ptychoflow.inference_edge.stitching.quality import ReferenceImage, compare, measure


def smooth(seed, shape=(60, 70), scale=1.0):
    values = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 3)
    return scale * values / np.abs(values).max()


def reference_image(shape=(60, 70), origin_px=(-5.0, 12.0)):
    return ReferenceImage(1 + smooth(1, shape, 0.3), smooth(2, shape, 1.2), origin_px)


def stitched(amplitude, phase, origin_px=(-5, 12), coverage=None):
    coverage = np.full(amplitude.shape, 3, dtype=np.int32) if coverage is None else coverage
    return StitchedImage(amplitude.astype(np.float32), phase.astype(np.float32), coverage, origin_px)


def noisy(reference, seed=9, origin_px=(-5, 12), coverage=None):
    rng = np.random.default_rng(seed)
    amplitude = reference.amplitude + 0.05 * rng.standard_normal(reference.amplitude.shape)
    phase = reference.phase + 0.1 * rng.standard_normal(reference.phase.shape)
    return stitched(amplitude, phase, origin_px, coverage)


def test_full_rectangle_equals_scikit_image():
    reference = reference_image()
    comparison = compare(noisy(reference), reference, min_coverage=2)
    assert comparison is not None
    quality = measure(comparison)
    assert quality is not None
    pairs = {
        "amplitude": (reference.amplitude, comparison.amplitude),
        "phase": (reference.phase, comparison.phase),
    }
    for channel, (expected, image) in pairs.items():
        data_range = expected.max() - expected.min()
        psnr_db = peak_signal_noise_ratio(expected, image, data_range=data_range)
        ssim = structural_similarity(expected, image, data_range=data_range)
        assert getattr(quality.psnr_db, channel) == pytest.approx(psnr_db, abs=1e-9)
        assert getattr(quality.ssim, channel) == pytest.approx(ssim, abs=1e-12)
        correlation = np.corrcoef(expected.ravel(), image.ravel())[0, 1]
        assert getattr(quality.correlation, channel) == pytest.approx(correlation, abs=1e-12)


def test_global_phase_and_whole_turns_do_not_matter():
    reference = reference_image()
    plain = noisy(reference)
    turned_phase = np.angle(np.exp(1j * (plain.phase.astype(float) + 2.5)))
    turned = stitched(plain.amplitude, turned_phase)
    qualities = [measure(compare(image, reference, min_coverage=1)) for image in (plain, turned)]
    assert qualities[0].psnr_db.phase == pytest.approx(qualities[1].psnr_db.phase, abs=1e-4)
    assert qualities[0].ssim.phase == pytest.approx(qualities[1].ssim.phase, abs=1e-6)


def test_only_the_covered_area_counts():
    reference = reference_image()
    coverage = np.full(reference.amplitude.shape, 5, dtype=np.int32)
    coverage[:20] = 1
    coverage[40:, 50:] = 0
    good = noisy(reference, coverage=coverage)
    spoilt = stitched(
        np.where(coverage >= 2, good.amplitude, 77), np.where(coverage >= 2, good.phase, 3), coverage=coverage
    )
    assert measure(compare(good, reference, min_coverage=2)) == measure(compare(spoilt, reference, min_coverage=2))
    comparison = compare(good, reference, min_coverage=2)
    assert comparison.origin_px == (15, 12)
    area = coverage[20:] >= 2
    np.testing.assert_array_equal(comparison.area, area)
    expected = reference.amplitude[20:]
    error = np.mean((good.amplitude[20:].astype(float) - expected)[area] ** 2)
    psnr_db = 10 * math.log10(np.ptp(expected[area]) ** 2 / error)
    assert measure(comparison).psnr_db.amplitude == pytest.approx(psnr_db, abs=1e-9)


def test_images_are_joined_by_origin_not_by_corner():
    reference = reference_image()
    inner = (slice(10, 50), slice(7, 66))
    image = stitched(reference.amplitude[inner], reference.phase[inner], origin_px=(-5 + 10, 12 + 7))
    assert measure(compare(image, reference, min_coverage=1)).psnr_db.phase > 120
    shifted = stitched(reference.amplitude[inner], reference.phase[inner], origin_px=(-5 + 11, 12 + 7))
    assert measure(compare(shifted, reference, min_coverage=1)).psnr_db.phase < 40


def test_a_fractional_reference_origin_is_honoured():
    y, x = np.mgrid[:60, :70].astype(float)

    def amplitude_at(y, x):
        return 1 + 0.3 * np.sin(y / 4) * np.cos(x / 5)

    def phase_at(y, x):
        return 0.7 * np.cos(y / 5 + x / 7) * 5 - 0.5

    reference = ReferenceImage(amplitude_at(y - 4.5, x + 0.25), phase_at(y - 4.5, x + 0.25), (-4.5, 0.25))
    image = stitched(amplitude_at(y - 4, x + 1), phase_at(y - 4, x + 1), origin_px=(-4, 1))
    quality = measure(compare(image, reference, min_coverage=1))
    half_pixel_off = ReferenceImage(reference.amplitude, reference.phase, (-4.0, 0.25))
    worse = measure(compare(image, half_pixel_off, min_coverage=1))
    for channel in ("amplitude", "phase"):
        assert getattr(quality.psnr_db, channel) > 45
        assert getattr(worse.psnr_db, channel) < 32


def test_equal_images_have_finite_scores():
    reference = reference_image()
    quality = measure(compare(stitched(reference.amplitude, reference.phase), reference, min_coverage=1))
    assert 120 < quality.psnr_db.amplitude <= 200
    assert quality.ssim.phase == pytest.approx(1)


def test_a_constant_image_correlates_with_nothing():
    reference = reference_image()
    rounding = np.random.default_rng(0).uniform(-3e-7, 3e-7, (2, 60, 70))
    for off in (0 * rounding, rounding):
        flat = stitched(0.9 + off[0], reference.phase.mean() + off[1])
        quality = measure(compare(flat, reference, min_coverage=1))
        assert quality.correlation.amplitude == 0
        assert quality.correlation.phase == 0


def test_undefined_quality_is_none():
    reference = reference_image()
    assert compare(noisy(reference, origin_px=(500, 500)), reference, min_coverage=1) is None
    assert compare(noisy(reference), reference, min_coverage=4) is None
    flat = ReferenceImage(np.ones((60, 70)), reference.phase, (-5.0, 12.0))
    assert measure(compare(noisy(reference), flat, min_coverage=1)) is None
    thin = np.zeros((60, 70), dtype=np.int32)
    thin[30:35] = 2
    assert measure(compare(noisy(reference, coverage=thin), reference, min_coverage=2)) is None
