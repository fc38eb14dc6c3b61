"""The gauge undoes exactly what phase retrieval leaves open: scale, constant and phase ramp."""

import numpy as np
import pytest
from scipy import ndimage

from ptychoflow.acquisition.retrieval.gauge import find_gauge

SHAPE = (90, 110)
EVERYWHERE = np.ones(SHAPE, bool)


def ambiguity(*, level=1.0, constant=0.0, slope=(0.0, 0.0)):
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return level * np.exp(1j * (constant + slope[0] * y + slope[1] * x))


def bars_on_void():
    """Absorbing, phase-shifting bars of unequal phase on void, more of them on one side."""
    values = np.ones(SHAPE, complex)
    for start, width, phase in [(5, 12, -0.8), (25, 9, -1.1), (44, 14, -0.6), (70, 7, -2.5), (95, 6, -0.9)]:
        values[10:75, start : start + width] = 0.93 * np.exp(1j * phase)
    return values


def rough_without_void(seed=1, strength=1.5):
    noise = np.random.default_rng(seed).normal(size=(2, *SHAPE))
    smooth = np.stack([ndimage.gaussian_filter(one, 2, mode="wrap") for one in noise])
    smooth /= smooth.std(axis=(1, 2), keepdims=True)
    return (0.8 + 0.05 * smooth[0]) * np.exp(1j * strength * smooth[1])


def phase_difference(first, second):
    return np.abs(np.angle(first * second.conj())).max()


AMBIGUITIES = [
    {"level": 3.7, "constant": 2.9, "slope": (0.011, -0.017)},
    {"level": 0.02, "constant": -1.3, "slope": (-0.4, 0.9)},
    {"level": 1.0, "constant": np.pi, "slope": (3.0, -2.6)},
]


@pytest.mark.parametrize("parameters", AMBIGUITIES)
def test_ramp_constant_and_scale_are_undone_where_there_is_void(parameters):
    values = bars_on_void()
    result = find_gauge(values * ambiguity(**parameters), EVERYWHERE)
    gauged = result.apply(values * ambiguity(**parameters))
    assert result.void_share > 0.3
    assert np.abs(gauged - values).max() < 2e-4


@pytest.mark.parametrize("parameters", AMBIGUITIES)
def test_without_void_the_output_does_not_depend_on_ramp_constant_and_scale(parameters):
    values = rough_without_void()
    gauge = find_gauge(values, EVERYWHERE)
    assert gauge.void_share == 0.0
    plain = gauge.apply(values)
    moved_values = values * ambiguity(**parameters)
    moved = find_gauge(moved_values, EVERYWHERE).apply(moved_values)
    assert np.abs(moved - plain).max() < 1e-4
    assert np.mean(np.angle(plain)) == pytest.approx(0.0, abs=1e-4)
    assert np.median(np.abs(plain)) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("values", [bars_on_void(), rough_without_void()], ids=["void", "no void"])
def test_a_second_gauge_changes_nothing(values):
    once = find_gauge(values, EVERYWHERE).apply(values)
    twice = find_gauge(once, EVERYWHERE)
    assert phase_difference(twice.apply(once), once) < 1e-4
    assert twice.level == pytest.approx(1.0, abs=1e-5)


def test_noise_shifts_the_ramp_by_less_than_a_milliradian_per_pixel():
    rng = np.random.default_rng(0)
    noise = 0.03 * (rng.normal(size=SHAPE) + 1j * rng.normal(size=SHAPE))
    values = bars_on_void() + noise
    gauge = find_gauge(values * ambiguity(slope=(0.2, -0.1), constant=1.0), EVERYWHERE)
    assert gauge.slope_rad_per_px == pytest.approx((0.2, -0.1), abs=3e-4)
    gauged = gauge.apply(values * ambiguity(slope=(0.2, -0.1), constant=1.0))
    void = bars_on_void() == 1
    assert np.median(np.angle(gauged[void])) == pytest.approx(0.0, abs=0.01)
    assert np.median(np.abs(gauged[void])) == pytest.approx(1.0, abs=0.01)


def test_phases_beyond_half_a_turn_wrap_and_void_stays_zero():
    values = bars_on_void()
    values[20:60, 25:34] = 0.9 * np.exp(-4j)
    gauged = find_gauge(values * ambiguity(constant=2.0, slope=(0.3, 0.1)), EVERYWHERE).apply(
        values * ambiguity(constant=2.0, slope=(0.3, 0.1))
    )
    assert np.angle(gauged[40, 29]) == pytest.approx(2 * np.pi - 4, abs=1e-3)
    assert np.angle(gauged[2, 2]) == pytest.approx(0.0, abs=1e-3)


def test_what_is_not_lit_has_no_say():
    values = bars_on_void()
    lit = np.zeros(SHAPE, bool)
    lit[8:80, 8:100] = True
    rng = np.random.default_rng(3)
    noisy = np.where(lit, values, 5 * rng.normal(size=SHAPE) * np.exp(1j * rng.uniform(-3, 3, SHAPE)))
    clean = find_gauge(values, lit)
    gauge = find_gauge(noisy, lit)
    assert gauge.slope_rad_per_px == pytest.approx(clean.slope_rad_per_px, abs=1e-9)
    assert gauge.level == pytest.approx(clean.level, abs=1e-9)


def test_an_object_that_is_dark_or_unlit_is_refused():
    with pytest.raises(ValueError, match="lit and not zero"):
        find_gauge(np.zeros(SHAPE, complex), EVERYWHERE)
    with pytest.raises(ValueError, match="lit and not zero"):
        find_gauge(bars_on_void(), np.zeros(SHAPE, bool))
