"""The score without ground truth: against values by hand, against the simulator's frames, and what it must not see."""

from __future__ import annotations

import numpy as np
import pytest

from ptychoflow.acquisition.propagation import far_field_intensity
from ptychoflow.inference_edge.ptychography.residual import forward_residuals

SHAPE = (16, 20)
RANDOM = np.random.default_rng(3)
AMPLITUDE = RANDOM.uniform(0.5, 1.0, (6, *SHAPE))
PHASE = RANDOM.uniform(-1.0, 1.0, (6, *SHAPE))


def probe(modes: int = 1) -> np.ndarray:
    y, x = np.indices(SHAPE)
    spot = np.exp(-(((y - 8) / 3.0) ** 2) - ((x - 10) / 3.0) ** 2)
    return np.stack([30.0 / (1 + mode) * spot * np.exp(0.2j * y * (mode + 1)) for mode in range(modes)])


def frames(modes: int = 1) -> np.ndarray:
    return far_field_intensity(probe(modes), AMPLITUDE * np.exp(1j * PHASE))


@pytest.mark.parametrize("modes", [1, 3])
def test_a_perfect_prediction_leaves_nothing(modes: int) -> None:
    found = forward_residuals(frames(modes), AMPLITUDE, PHASE, probe(modes))
    assert found == pytest.approx(np.zeros(6), abs=1e-12)


def test_brightness_and_a_constant_phase_make_no_difference() -> None:
    wrong = PHASE[::-1]
    expected = forward_residuals(frames(), AMPLITUDE, wrong, probe())
    assert (expected > 0.01).all()
    brighter = 7.0 * frames() * np.arange(1, 7)[:, None, None]
    assert forward_residuals(brighter, AMPLITUDE, wrong + 2.5, 0.1 * probe()) == pytest.approx(expected)


def test_two_pixels_by_hand() -> None:
    """A plane wave through (1, i) of a row of two: amplitudes |1 + i| and |1 - i| over the root of 2 are 1 and 1."""
    counts = np.array([[[16.0, 9.0]]])
    found = forward_residuals(counts, np.ones((1, 1, 2)), np.array([[[0.0, np.pi / 2]]]), np.ones((1, 1, 2), complex))
    brightness = (4.0 + 3.0) / 2.0
    assert found[0] == pytest.approx(((4.0 - brightness) ** 2 + (3.0 - brightness) ** 2) / 25.0)


def test_noise_of_n_photons_leaves_a_quarter_of_a_photon_per_pixel() -> None:
    bright = 400.0 * frames()
    noisy = np.random.default_rng(0).poisson(bright)
    found = forward_residuals(noisy, AMPLITUDE, PHASE, probe())
    lit = bright > 20
    expected = lit.sum(axis=(1, 2)) / 4.0 / noisy.sum(axis=(1, 2))
    assert found == pytest.approx(expected, rel=0.35)


def test_bad_pixels_are_not_looked_at_and_dark_frames_have_no_score() -> None:
    mask = np.zeros(SHAPE, bool)
    mask[8, 10] = True
    spoilt = frames()
    spoilt[:, 8, 10] = 1e9
    spoilt[2] = 0
    found = forward_residuals(spoilt, AMPLITUDE, PHASE, probe(), mask)
    assert np.isnan(found).tolist() == [False, False, True, False, False, False]
    assert np.nan_to_num(found) == pytest.approx(np.zeros(6), abs=1e-12)


def test_a_patch_of_the_middle_is_enough_where_the_probe_is_small() -> None:
    middle = (slice(None), slice(2, 14), slice(2, 18))
    found = forward_residuals(frames(), AMPLITUDE[middle], PHASE[middle], probe())
    other = forward_residuals(frames(), AMPLITUDE[::-1][middle], PHASE[::-1][middle], probe())
    assert (found < 0.05 * other).all()
