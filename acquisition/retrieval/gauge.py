"""One gauge for every ground-truth object.

Frames do not change when the object is multiplied by a constant and by a phase ramp (the probe takes the inverse and
the frames' zero frequency moves by the ramp's slope), so phase retrieval leaves both open. The convention here, over
the well-lit area:

- Where the specimen leaves void, its phase is a constant zero and its median amplitude 1. Void is flat and bright:
  the complex mean over `VOID_WINDOW_PX` pixels keeps the amplitude (nothing inside changes) and is among the largest.
  When several levels are equally bright, the most common one is the void.
- Without void the mean phase gradient is zero, the mean phase is zero, and the median amplitude is 1.

Phases come out within ±π. The ramp is first estimated from the phase of neighbouring pixels' products, which wraps
do not disturb, and then fitted on the void by re-weighted least squares with a shrinking scale (graduated
non-convexity), so that whatever is not void has no weight. Every step commutes with ramps, constants and scale:
multiplying the input by any of them does not change the output.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Complex = npt.NDArray[np.complex64] | npt.NDArray[np.complex128]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

VOID_WINDOW_PX = 5
FLATNESS = 0.985
"""Least |local mean| / local root mean square of void; a phase spread of 0.17 rad."""
BRIGHTNESS = 0.98
"""Least amplitude of void over the bright end of the flat pixels."""
BRIGHT_QUANTILE = 0.95
MINIMUM_VOID_SHARE = 0.03
"""Of the well-lit area."""
FIT_SCALES_RAD = (1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.12, 0.12, 0.12)
MEAN_PHASE_ITERATIONS = 20


@dataclass(frozen=True)
class Gauge:
    """A factor that brings an object to the common gauge: exp(-i (constant + slope · pixel)) / level."""

    level: float
    constant_rad: float
    slope_rad_per_px: tuple[float, float]
    """Along y and x."""
    void_share: float
    """Part of the well-lit area that is void; 0 when there is too little to fix the gauge."""

    def apply(self, values: Complex) -> npt.NDArray[np.complex64]:
        """Return `values` (y, x), the whole image that the gauge was found on, in the common gauge."""
        factor = _ramp(values.shape, self.slope_rad_per_px) * (np.exp(-1j * self.constant_rad) / self.level)
        return np.asarray(values * factor, np.complex64)


def find_gauge(values: Complex, lit: Mask) -> Gauge:
    """Return the gauge of an object (y, x) from its pixels where `lit` (y, x) is True.

    Raises:
        ValueError: fewer than two neighbouring pixels are lit, or all of them are zero.
    """
    wide: npt.NDArray[np.complex128] = values.astype(np.complex128)
    slope = _mean_slope(wide, lit)
    levelled = wide * _ramp(wide.shape, slope)
    void = _find_void(levelled, lit)
    void_share = float(void.sum() / lit.sum())
    if void_share < MINIMUM_VOID_SHARE:
        return Gauge(float(np.median(np.abs(wide[lit]))), _mean_phase(levelled[lit]), slope, 0.0)
    constant, tilt = _fit_void_plane(levelled, void)
    total = (slope[0] + tilt[0], slope[1] + tilt[1])
    return Gauge(float(np.median(np.abs(wide[void]))), constant, total, void_share)


def _ramp(shape: tuple[int, ...], slope: tuple[float, float]) -> npt.NDArray[np.complex128]:
    height, width = shape
    along_y, along_x = np.exp(-1j * slope[0] * np.arange(height)), np.exp(-1j * slope[1] * np.arange(width))
    ramp: npt.NDArray[np.complex128] = along_y[:, np.newaxis] * along_x
    return ramp


def _mean_slope(values: Complex, lit: Mask) -> tuple[float, float]:
    along_y = np.sum((values[1:] * values[:-1].conj())[lit[1:] & lit[:-1]])
    along_x = np.sum((values[:, 1:] * values[:, :-1].conj())[lit[:, 1:] & lit[:, :-1]])
    if along_y == 0 or along_x == 0:
        raise ValueError("the gauge needs neighbouring pixels that are lit and not zero")
    return float(np.angle(along_y)), float(np.angle(along_x))


def _find_void(values: Complex, lit: Mask) -> Mask:
    mean = np.abs(_window_mean(values.real) + 1j * _window_mean(values.imag))
    power = _window_mean(np.abs(values) ** 2)
    inside = ndimage.binary_erosion(lit, np.ones((VOID_WINDOW_PX, VOID_WINDOW_PX)))
    flat: Mask = inside & (mean > 0) & (mean**2 >= FLATNESS**2 * power)
    if flat.any():
        flat &= mean >= BRIGHTNESS * np.quantile(mean[flat], BRIGHT_QUANTILE)
    return flat


def _window_mean(values: npt.NDArray[np.floating]) -> Floats:
    return np.asarray(ndimage.uniform_filter(values, VOID_WINDOW_PX, mode="nearest"))


def _fit_void_plane(values: Complex, void: Mask) -> tuple[float, tuple[float, float]]:
    """Fit (constant, (slope y, slope x)) to the most common phase plane of the void pixels."""
    y, x = np.nonzero(void)
    design = np.stack([np.ones(len(y)), y - y.mean(), x - x.mean()], axis=1)
    phasors = values[void] / np.abs(values[void])
    plane = np.array([_most_common_phase(phasors), 0.0, 0.0])
    for scale_rad in FIT_SCALES_RAD:
        residual = np.angle(phasors * np.exp(-1j * (design @ plane)))
        weights = np.exp(-0.5 * (residual / scale_rad) ** 2)
        plane += np.linalg.lstsq(design * weights[:, np.newaxis] ** 0.5, residual * weights**0.5, rcond=None)[0]
    constant = plane[0] - plane[1] * y.mean() - plane[2] * x.mean()
    return float(constant), (float(plane[1]), float(plane[2]))


def _most_common_phase(phasors: Complex) -> float:
    """Return the peak of the phase density on the circle, smoothed over about 0.3 rad."""
    candidates = np.linspace(-np.pi, np.pi, 64, endpoint=False)
    density = [np.sum(np.exp((np.real(phasors * np.exp(-1j * angle)) - 1) / 0.1)) for angle in candidates]
    return float(candidates[int(np.argmax(density))])


def _mean_phase(values: Complex) -> float:
    """Return the constant about which the wrapped phases have mean zero, starting from the circular mean."""
    constant = float(np.angle(values.sum()))
    for _ in range(MEAN_PHASE_ITERATIONS):
        constant += float(np.mean(np.angle(values * np.exp(-1j * constant))))
    return constant
