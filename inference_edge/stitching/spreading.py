"""The inner loop of stitching, compiled: spreads patches over a canvas with bilinear weights.

Each row of a patch is read once, and each row of the canvas is read and written once per patch; cosine and sine are
computed on the way. In NumPy the same takes about ten passes over memory of four times the size.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

AMPLITUDE, COSINE, SINE, WEIGHT = range(4)
LAYERS = 4

_compiled = numba.njit(nogil=True, cache=True, fastmath={"contract"})

# π/2 in three parts whose products with a small integer are exact in float32 (W. J. Cody and W. Waite, Software
# Manual for the Elementary Functions, 1980), and minimax polynomials on ±π/4; the error is below 1e-7.
_QUARTERS_PER_RAD = np.float32(2 / np.pi)
_QUARTER_1, _QUARTER_2, _QUARTER_3 = np.float32(1.5703125), np.float32(4.8375130e-4), np.float32(7.5497899e-8)
_SINE_3, _SINE_5, _SINE_7 = np.float32(-1.6666655e-1), np.float32(8.3321609e-3), np.float32(-1.9515296e-4)
_COSINE_4, _COSINE_6, _COSINE_8 = np.float32(4.1666646e-2), np.float32(-1.3887316e-3), np.float32(2.4433157e-5)
_HALF, _ONE = np.float32(0.5), np.float32(1)


@_compiled
def add_patches(
    sums: npt.NDArray[np.float64],
    coverage: npt.NDArray[np.int32],
    amplitude: npt.NDArray[np.float32],
    phase: npt.NDArray[np.float32],
    corners: npt.NDArray[np.int64],
    beyond: npt.NDArray[np.float32],
) -> None:
    """Add patches to a canvas, in place; releases the interpreter's lock.

    Args:
        sums: (4, canvas y, canvas x): weight × amplitude, weight × cos(phase), weight × sin(phase), weight.
        coverage: (canvas y, canvas x), how many patches reach each pixel.
        amplitude: (n, y, x); (0, y, x) where it is 1 everywhere.
        phase: (n, y, x) in radians, finite and less than some thousand turns.
        corners: (n, 2), the canvas pixel (y, x) that pixel (0, 0) of each patch lies on or behind; y + 1 rows and
            x + 1 columns from there must lie on the canvas, which is not checked.
        beyond: (n, 2), how far behind, within [0, 1) pixels.
    """
    count, height, width = phase.shape
    with_amplitude = len(amplitude) > 0
    cosine, sine, ones = np.empty(width, np.float32), np.empty(width, np.float32), np.ones(width, np.float32)
    row, before = np.zeros((LAYERS, width + 1), np.float32), np.zeros((LAYERS, width + 1), np.float32)
    for n in range(count):
        top, left = corners[n]
        far_y, far_x = beyond[n]
        near_y, near_x = _ONE - far_y, _ONE - far_x
        covered_height, covered_width = height + (far_y > 0), width + (far_x > 0)
        before[:] = 0
        for y in range(height + 1):
            if y < height:
                _phasors(phase[n, y], cosine, sine)
                _across(cosine, near_x, far_x, row[COSINE])
                _across(sine, near_x, far_x, row[SINE])
                _across(ones, near_x, far_x, row[WEIGHT])
                if with_amplitude:
                    _across(amplitude[n, y], near_x, far_x, row[AMPLITUDE])
                else:
                    row[AMPLITUDE] = row[WEIGHT]
            else:
                row[:] = 0
            for layer in range(LAYERS):
                _down(row[layer], before[layer], near_y, far_y, sums[layer, top + y, left : left + width + 1])
            if y < covered_height:
                _count(coverage[top + y, left : left + covered_width])
            row, before = before, row


def prepare_stitching() -> None:
    """Compile the loop, or load what was compiled before: what else the first frames would wait for."""
    patch, nowhere = np.zeros((1, 1, 1), np.float32), np.zeros((1, 2))
    canvas, coverage = np.zeros((LAYERS, 2, 2)), np.zeros((2, 2), np.int32)
    add_patches(canvas, coverage, patch, patch, nowhere.astype(np.int64), nowhere.astype(np.float32))


@_compiled
def _across(values: Any, near: Any, far: Any, spread: Any) -> None:
    width = values.shape[0]
    spread[0] = near * values[0]
    for x in range(1, width):
        spread[x] = near * values[x] + far * values[x - 1]
    spread[width] = far * values[width - 1]


@_compiled
def _down(row: Any, before: Any, near: Any, far: Any, total: Any) -> None:
    for x in range(total.shape[0]):
        total[x] += near * row[x] + far * before[x]


@_compiled
def _count(covered: Any) -> None:
    for x in range(covered.shape[0]):
        covered[x] += 1


@_compiled
def _phasors(phase: Any, cosine: Any, sine: Any) -> None:
    for x in range(phase.shape[0]):
        quarters = np.floor(phase[x] * _QUARTERS_PER_RAD + _HALF)
        rest = ((phase[x] - quarters * _QUARTER_1) - quarters * _QUARTER_2) - quarters * _QUARTER_3
        square = rest * rest
        sine_rest = ((_SINE_7 * square + _SINE_5) * square + _SINE_3) * square * rest + rest
        cosine_rest = ((_COSINE_8 * square + _COSINE_6) * square + _COSINE_4) * square * square - _HALF * square + _ONE
        quadrant = np.int32(quarters)
        swapped = (quadrant & 1) != 0
        sine_size = cosine_rest if swapped else sine_rest
        cosine_size = sine_rest if swapped else cosine_rest
        sine[x] = -sine_size if (quadrant & 2) != 0 else sine_size
        cosine[x] = -cosine_size if ((quadrant + 1) & 2) != 0 else cosine_size
