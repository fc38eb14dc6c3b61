"""Residuals as they come: the newest, the worst and the map; in a bounded share of time; and what errors they mean."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ptychoflow.inference_edge.backends.prediction import Prediction
from ptychoflow.inference_edge.ptychography import residual_meter
from ptychoflow.inference_edge.ptychography.calibration import (
    LEAST_FRAMES,
    Calibrator,
    local_errors_rad,
    rank_correlation,
)
from ptychoflow.inference_edge.ptychography.frame_residuals import WINDOW, FrameResiduals
from ptychoflow.inference_edge.ptychography.residual import forward_residuals
from ptychoflow.inference_edge.ptychography.residual_meter import ResidualMeter
from ptychoflow.inference_edge.stitching.area import Area
from ptychoflow.inference_edge.stitching.quality import Comparison
from ptychoflow.streaming.illumination import Illumination

RANDOM = np.random.default_rng(5)
PATCH = (8, 8)


def residuals_of(values: np.ndarray, positions_px: np.ndarray | None = None) -> FrameResiduals:
    residuals = FrameResiduals()
    positions_px = np.zeros((len(values), 2)) if positions_px is None else positions_px
    residuals.add(np.asarray(values, float), positions_px, patch_shape_px=PATCH)
    return residuals


def test_some_bad_frames_do_not_change_the_newest_and_the_worst_is_kept() -> None:
    residuals = residuals_of(np.full(WINDOW - 1, 0.1))
    assert (residuals.newest, residuals.worst) == (None, None)
    some_bad = np.full(WINDOW, 0.1)
    some_bad[: WINDOW // 2 - 1] = 0.9
    residuals.add(some_bad, np.zeros((WINDOW, 2)), patch_shape_px=PATCH)
    assert (residuals.newest, residuals.worst) == (0.1, 0.1)
    for value in (0.4, 0.2, np.nan):
        residuals.add(np.full(WINDOW, value), np.zeros((WINDOW, 2)), patch_shape_px=PATCH)
    assert (residuals.newest, residuals.worst, residuals.scored) == (0.2, 0.4, 4 * WINDOW - 1)


def test_the_map_shows_the_mean_of_the_frames_over_each_cell() -> None:
    positions_px = RANDOM.uniform(2, 58, (40, 2))
    values = RANDOM.uniform(0, 1, 40)
    area = Area(-3, 5, 50, 61)
    shown = residuals_of(values, positions_px).map(area)
    assert (shown.cell_px, shown.origin_px, shown.values.shape) == (2, (-3, 5), (27, 28))
    sums, counts = np.zeros((2, 27, 28))
    for (y, x), value in zip(positions_px, values, strict=True):
        top, left = (round((at - 4 - origin) / 2) for at, origin in ((y, -3), (x, 5)))
        rows, columns = slice(max(top, 0), max(top + 4, 0)), slice(max(left, 0), max(left + 4, 0))
        sums[rows, columns] += value
        counts[rows, columns] += 1
    expected = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    assert np.isnan(expected).any()
    np.testing.assert_allclose(shown.values, expected, atol=1e-6)


class Clock:
    """A host with nothing else to do, or one on which two thirds of the time are others'."""

    def __init__(self, *, busy_host: bool = False) -> None:
        self.now_s = self.cpu_s = 0.0
        self.busy_host = busy_host

    def work(self, seconds: float) -> None:
        self.now_s += 3 * seconds if self.busy_host else seconds
        self.cpu_s += seconds

    def perf_counter(self) -> float:
        return self.now_s

    def process_time(self) -> float:
        return self.cpu_s

    thread_time = process_time


@pytest.mark.parametrize("rest_s", [0.0, 0.1])
@pytest.mark.parametrize("busy_host", [False, True])
@pytest.mark.parametrize(("share", "frame_s"), [(0.02, 1e-3), (0.1, 1e-3), (0.5, 1e-4), (0.0, 1e-3)])
def test_scoring_keeps_to_its_share_and_scores_every_frame_that_fits(
    monkeypatch: pytest.MonkeyPatch, share: float, frame_s: float, busy_host: bool, rest_s: float
) -> None:
    clock, batch, batch_s = Clock(busy_host=busy_host), 16, 0.05
    spent_s = 0.0

    def score(counts: np.ndarray, *_: object) -> np.ndarray:
        nonlocal spent_s
        clock.work(len(counts) * frame_s)
        spent_s += len(counts) * frame_s
        return np.zeros(len(counts))

    monkeypatch.setattr(residual_meter, "time", clock)
    monkeypatch.setattr(residual_meter, "_residuals", score)
    meter = ResidualMeter(share)
    frames, scored, prediction = np.zeros((batch, 2, 2)), 0, Prediction(None, np.zeros((batch, 2, 2), np.float32))
    light = Illumination(np.ones((1, 2, 2), np.complex64), None)
    for _ in range(2000):
        clock.now_s += rest_s
        meter.begin()
        clock.work(batch_s)
        scored += int(np.isfinite(meter.measure(frames, prediction, light)).sum())
    saved_s = share * residual_meter.SAVED_S + residual_meter.FIRST_FRAMES * frame_s
    usable_s = clock.cpu_s + 2000 * rest_s / (3 if busy_host else 1)
    assert spent_s <= share * usable_s + saved_s + frame_s
    assert scored >= min(1999 * batch, 0.9 * share * usable_s / frame_s) * (share > 0)


@pytest.mark.parametrize(
    ("rest_s", "predicted_s", "expected"),
    [(100.0, 0.041, 20), (0.0, 0.041, 20), (0.0, 0.41, 64), (100.0, 1e-6, 3), (0.0, 0.011, 5)],
)
def test_a_batch_waits_for_half_of_its_own_time_or_milliseconds_however_much_was_saved(
    monkeypatch: pytest.MonkeyPatch, rest_s: float, predicted_s: float, expected: int
) -> None:
    clock = Clock()
    monkeypatch.setattr(residual_meter, "time", clock)
    monkeypatch.setattr(residual_meter, "UNNOTICED_S", 3.5e-3)

    def score(counts: np.ndarray, *_: object) -> np.ndarray:
        clock.work(len(counts) * 1e-3)
        return np.zeros(len(counts))

    monkeypatch.setattr(residual_meter, "_residuals", score)
    meter, frames = ResidualMeter(0.03), np.zeros((64, 2, 2), np.float32)
    light = Illumination(np.ones((1, 2, 2), np.complex64), None)
    for waited_s, took_s, scored in ((100.0, 1.0, residual_meter.FIRST_FRAMES), (rest_s, predicted_s, expected)):
        clock.now_s += waited_s
        meter.begin()
        clock.work(took_s)
        found = meter.measure(frames, Prediction(None, frames), light)
        assert int(np.isfinite(found).sum()) == scored


def test_what_is_scored_is_scored_as_it_is_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residual_meter, "FIRST_FRAMES", 70)
    shape = (64, 64)
    counts = RANDOM.poisson(4.0, (70, *shape)).astype(np.float32)
    amplitude, phase = RANDOM.uniform(0.5, 1, (2, 70, 32, 32)).astype(np.float32)
    probe = RANDOM.normal(size=(3, *shape)).astype(np.complex64)
    mask = RANDOM.uniform(size=shape) < 0.1
    found = ResidualMeter(1.0).measure(counts, Prediction(amplitude, phase), Illumination(probe, mask))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, forward_residuals(counts, amplitude, phase, probe, mask), rtol=1e-5)
    phase_only = ResidualMeter(1.0).measure(counts, Prediction(None, phase), Illumination(probe, None))
    np.testing.assert_allclose(phase_only, forward_residuals(counts, np.ones_like(phase), phase, probe), rtol=1e-5)


def comparison(error_rad: np.ndarray, area: np.ndarray | None = None) -> Comparison:
    flat = np.zeros_like(error_rad)
    area = np.ones(error_rad.shape, bool) if area is None else area
    return Comparison(flat, error_rad, flat, flat, area, (10, -20), 0.0)


def test_the_error_under_a_frame_is_that_of_the_compared_pixels_under_its_patch() -> None:
    error_rad, area = RANDOM.normal(size=(30, 40)), RANDOM.uniform(size=(30, 40)) < 0.7
    area[:, 30:] = False
    positions_px = np.array([[20.0, 0.0], [11.3, -19.6], [39.0, 8.0], [25.0, 18.0], [400.0, 0.0]])
    found = local_errors_rad(positions_px, PATCH, comparison(error_rad, area))
    for (y, x), one in zip(np.round(positions_px).astype(int), found, strict=True):
        rows, columns = slice(max(y - 14, 0), max(y - 6, 0)), slice(max(x + 16, 0), max(x + 24, 0))
        inside = error_rad[rows, columns][area[rows, columns]]
        assert one == pytest.approx(np.sqrt(np.mean(inside**2)) if inside.size else np.nan, nan_ok=True)
    assert np.isnan(found[-2:]).all()


def graded(frames: int, exponent: float) -> tuple[FrameResiduals, Comparison]:
    """Frames side by side, each over an error of its own, whose residuals follow a power law."""
    errors = np.geomspace(0.05, 0.8, frames)
    image = np.repeat(errors, 8)[np.newaxis].repeat(8, axis=0)
    positions_px = np.stack([np.full(frames, 14.0), -16.0 + 8 * np.arange(frames)], axis=1)
    residuals = residuals_of(0.1 * errors ** (1 / exponent) if exponent else np.full(frames, 0.1), positions_px)
    return residuals, comparison(image)


def test_ranks_are_correlated_as_scipy_does_it_also_where_values_are_equal() -> None:
    rng = np.random.default_rng(0)
    first = rng.integers(0, 9, 40).astype(float)
    second = first + rng.integers(0, 9, 40)
    assert rank_correlation(first, second) == pytest.approx(stats.spearmanr(first, second).statistic, rel=1e-12)


def test_a_power_law_is_found_and_says_the_error_of_other_frames() -> None:
    calibrator = Calibrator()
    calibrator.learn("first", *graded(LEAST_FRAMES, 0.5))
    found = calibrator.current
    assert found is not None
    assert found.usable
    assert (found.exponent, found.correlation, found.spread) == pytest.approx((0.5, 1.0, 1.0))
    assert found.error_rad(np.array([0.1 * 0.3**2])) == pytest.approx(0.3)
    assert found.error_rad(np.array([0.1 * 0.3**2, 0.1 * 0.5**2])) == pytest.approx(np.sqrt((0.09 + 0.25) / 2))
    assert found.error_rad(np.array([1e3])) == pytest.approx(0.8), "no error is said beyond those that were seen"
    calibrator.learn("second", *graded(10, 0.5))
    calibrator.learn("first", *graded(20, 0.5))
    assert calibrator.current is not None
    assert (calibrator.current.frames, calibrator.current.images) == (30, 2)


@pytest.mark.parametrize(("frames", "exponent"), [(LEAST_FRAMES - 1, 0.5), (LEAST_FRAMES, -0.5), (LEAST_FRAMES, 0.0)])
def test_too_few_frames_or_residuals_that_do_not_rank_them_say_no_error(frames: int, exponent: float) -> None:
    calibrator = Calibrator()
    calibrator.learn("first", *graded(frames, exponent))
    assert calibrator.current is None or not calibrator.current.usable
