"""The inner loops of stitching, compiled: spread patches over a canvas with bilinear weights, and draw the canvas.

Each row of a patch is read once, and each row of the canvas is read and written once per patch; cosine and sine are
computed on the way. Both loops work on a band of rows, so that threads can share a canvas: every pixel is computed in
the same order and by the same operations however many there are. Rows are addressed by unsigned offsets into flat
arrays: a slice costs as much as thirty pixels, and a signed index is checked for each.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

COSINE, SINE, WEIGHT, AMPLITUDE = range(4)
"""Layers of a canvas. Without the last one, amplitudes are 1 everywhere and their sum is that of the weights."""
LAYERS_WITHOUT_AMPLITUDE, LAYERS = 3, 4

_compiled = numba.njit(nogil=True, cache=True, fastmath={"contract"}, error_model="numpy")

# π/2 in three parts whose products with a small integer are exact in float32 (W. J. Cody and W. Waite, Software
# Manual for the Elementary Functions, 1980), and minimax polynomials on ±π/4; the error is below 1e-7.
_QUARTERS_PER_RAD = np.float32(2 / np.pi)
_QUARTER_1, _QUARTER_2, _QUARTER_3 = np.float32(1.5703125), np.float32(4.8375130e-4), np.float32(7.5497899e-8)
_SINE_3, _SINE_5, _SINE_7 = np.float32(-1.6666655e-1), np.float32(8.3321609e-3), np.float32(-1.9515296e-4)
_COSINE_4, _COSINE_6, _COSINE_8 = np.float32(4.1666646e-2), np.float32(-1.3887316e-3), np.float32(2.4433157e-5)
_HALF, _ONE, _NAN = np.float32(0.5), np.float32(1), np.float32(np.nan)

# atan(√u) / √u on [0, 1], interpolated at eleven Chebyshev nodes; the relative error of the angle is below 5e-10.
_ATAN_0, _ATAN_1, _ATAN_2, _ATAN_3 = 0.9999999995535, -0.3333332248889, 0.1999955809988, -0.1427857601947
_ATAN_4, _ATAN_5, _ATAN_6, _ATAN_7 = 0.1105077124416, -0.08785043170557, 0.06685281272741, -0.04392840736215
_ATAN_8, _ATAN_9, _ATAN_10 = 0.02191294303868, -0.007030668149872, 0.001057607174682

_NEXT = np.uint64(1)


@_compiled
def add_patches(
    sums: npt.NDArray[np.float64],
    coverage: npt.NDArray[np.int32],
    amplitude: npt.NDArray[np.float32],
    phase: npt.NDArray[np.float32],
    corners: npt.NDArray[np.int64],
    beyond: npt.NDArray[np.float32],
    rows: tuple[int, int],
) -> None:
    """Add patches to a band of a canvas, in place; releases the interpreter's lock.

    Args:
        sums: (3 or 4, canvas y, canvas x): weight × cos(phase), weight × sin(phase), weight, weight × amplitude; all
            arrays are C-contiguous.
        coverage: (canvas y, canvas x), how many patches reach each pixel.
        amplitude: (n, y, x); (0, y, x) where it is 1 everywhere. Otherwise `sums` has four layers.
        phase: (n, y, x) in radians, finite and less than some thousand turns.
        corners: (n, 2), the canvas pixel (y, x) that pixel (0, 0) of each patch lies on or behind; y + 1 rows and
            x + 1 columns from there must lie on the canvas, which is not checked.
        beyond: (n, 2), how far behind, within [0, 1) pixels.
        rows: the first row of the band, and the first one behind it.
    """
    count, height, width = phase.shape
    layers, canvas_height, canvas_width = sums.shape
    layer = np.uint64(canvas_height * canvas_width)
    totals, covered = sums.reshape(-1), coverage.reshape(-1)
    phases, amplitudes = phase.reshape(-1), amplitude.reshape(-1)
    # with a zero on either side, so that a value and its left neighbour are there for all columns
    cosine, sine = np.zeros(width + 2, np.float32), np.zeros(width + 2, np.float32)
    size, one = np.zeros(width + 2, np.float32), np.zeros(width + 2, np.float32)
    cosine_above, sine_above = np.zeros(width + 1, np.float32), np.zeros(width + 1, np.float32)
    size_above, weight_above = np.zeros(width + 1, np.float32), np.zeros(width + 1, np.float32)
    weight = np.zeros(width + 1)
    patch_width = np.uint64(width)
    for n in range(count):
        top, left = corners[n]
        first, stop = max(rows[0] - top, 0), min(rows[1] - top, height + 1)
        far_y, far_x = beyond[n]
        near_y, near_x = _ONE - far_y, _ONE - far_x
        shares = (near_y, far_y, near_x, far_x)
        covered_height, covered_width = height + (far_y > 0), np.uint64(width + (far_x > 0))
        cosine_above[:], sine_above[:], size_above[:], weight_above[:] = 0, 0, 0, 0
        one[1:-1] = 1
        # the row above the band is computed once more than it is added
        for y in range(max(first - 1, 0), stop):
            source, target = np.uint64((n * height + y) * width), np.uint64((top + y) * canvas_width + left)
            if y < height:
                _phasors(phases, source, patch_width, cosine, sine)
                if len(amplitude):
                    _copy(amplitudes, source, patch_width, size)
            else:
                cosine[:], sine[:], size[:], one[:] = 0, 0, 0, 0
            if y < first:
                _across(cosine, shares, cosine_above)
                _across(sine, shares, sine_above)
                _across(size, shares, size_above)
                _across(one, shares, weight_above)
                continue
            _add_row(cosine, shares, cosine_above, totals, target)
            _add_row(sine, shares, sine_above, totals, target + layer)
            if y <= 1 or y in (first, height):
                # between them it stays the same
                weight[:] = 0
                _add_row(one, shares, weight_above, weight, np.uint64(0))
            _add_weight(weight, totals, target + layer + layer)
            if len(amplitude):
                _add_row(size, shares, size_above, totals, target + layer + layer + layer)
            elif layers == LAYERS:
                _add_weight(weight, totals, target + layer + layer + layer)
            if y < covered_height:
                _count(covered, target, covered_width)


@_compiled
def draw_rows(
    sums: npt.NDArray[np.float64],
    coverage: npt.NDArray[np.int32],
    drawn: npt.NDArray[np.float32],
    rows: tuple[int, int],
    columns: tuple[int, int],
) -> None:
    """Compute amplitude and phase of a part of a canvas; releases the interpreter's lock.

    Args:
        sums: as `add_patches` fills them.
        coverage: likewise.
        drawn: (2, canvas y, canvas x), gets amplitude and phase (radians within ±π); NaN where nothing covers a pixel.
        rows: the first row of the part, and the first one behind it.
        columns: likewise.
    """
    layers, canvas_height, canvas_width = sums.shape
    layer = np.uint64(canvas_height * canvas_width)
    totals, covered, images = sums.reshape(-1), coverage.reshape(-1), drawn.reshape(-1)
    size = np.uint64(WEIGHT if layers < LAYERS else AMPLITUDE) * layer
    width = np.uint64(columns[1] - columns[0])
    for y in range(rows[0], rows[1]):
        at = np.uint64(y * canvas_width + columns[0])
        _divide(totals, size, layer + layer, covered, at, width, images)
        _angles(totals, layer, covered, at, width, images)


def prepare_stitching() -> None:
    """Compile the loops, or load what was compiled before: what else the first frames would wait for."""
    patch, nowhere = np.zeros((1, 1, 1), np.float32), np.zeros((1, 2))
    canvas, coverage = np.zeros((LAYERS, 2, 2)), np.zeros((2, 2), np.int32)
    add_patches(canvas, coverage, patch, patch, nowhere.astype(np.int64), nowhere.astype(np.float32), (0, 2))
    draw_rows(canvas, coverage, np.zeros((2, 2, 2), np.float32), (0, 2), (0, 2))


@_compiled
def _copy(source: Any, at: Any, width: Any, values: Any) -> None:
    for x in range(width):
        values[x + _NEXT] = source[at + x]


@_compiled
def _across(values: Any, shares: Any, spread: Any) -> None:
    _, _, near, far = shares
    for x in range(spread.shape[0]):
        spread[x] = near * values[x + 1] + far * values[x]


@_compiled
def _add_row(values: Any, shares: Any, above: Any, totals: Any, at: Any) -> None:
    """Spread values over columns, add them and the row above to a row of the canvas, and keep them as the row above."""
    near_y, far_y, near_x, far_x = shares
    for x in range(np.uint64(above.shape[0])):
        here = near_x * values[x + _NEXT] + far_x * values[x]
        totals[at + x] += near_y * here + far_y * above[x]
        above[x] = here


@_compiled
def _add_weight(weight: Any, totals: Any, at: Any) -> None:
    for x in range(np.uint64(weight.shape[0])):
        totals[at + x] += weight[x]


@_compiled
def _count(covered: Any, at: Any, width: Any) -> None:
    for x in range(width):
        covered[at + x] += 1


@_compiled
def _phasors(phases: Any, at: Any, width: Any, cosine: Any, sine: Any) -> None:
    for x in range(width):
        phase = phases[at + x]
        quarters = np.floor(phase * _QUARTERS_PER_RAD + _HALF)
        rest = ((phase - quarters * _QUARTER_1) - quarters * _QUARTER_2) - quarters * _QUARTER_3
        square = rest * rest
        sine_rest = ((_SINE_7 * square + _SINE_5) * square + _SINE_3) * square * rest + rest
        cosine_rest = ((_COSINE_8 * square + _COSINE_6) * square + _COSINE_4) * square * square - _HALF * square + _ONE
        quadrant = np.int32(quarters)
        swapped = (quadrant & 1) != 0
        sine_size = cosine_rest if swapped else sine_rest
        cosine_size = sine_rest if swapped else cosine_rest
        sine[x + _NEXT] = -sine_size if (quadrant & 2) != 0 else sine_size
        cosine[x + _NEXT] = -cosine_size if ((quadrant + 1) & 2) != 0 else cosine_size


@_compiled
def _divide(totals: Any, size: Any, weight: Any, covered: Any, at: Any, width: Any, images: Any) -> None:
    for x in range(width):
        value = np.float32(totals[size + at + x] / totals[weight + at + x])
        images[at + x] = value if covered[at + x] > 0 else _NAN


@_compiled
def _angles(totals: Any, layer: Any, covered: Any, at: Any, width: Any, images: Any) -> None:
    for x in range(width):
        cosine, sine = totals[at + x], totals[layer + at + x]
        along, across = abs(cosine), abs(sine)
        longer, shorter = max(along, across), min(along, across)
        slope = shorter / longer if longer > 0 else 0.0
        angle = slope * _atan_of_root(slope * slope)
        angle = np.pi / 2 - angle if across > along else angle
        angle = np.pi - angle if cosine < 0 else angle
        angle = -angle if sine < 0 else angle
        images[layer + at + x] = np.float32(angle) if covered[at + x] > 0 else _NAN


@_compiled
def _atan_of_root(square: Any) -> Any:
    high = ((_ATAN_10 * square + _ATAN_9) * square + _ATAN_8) * square + _ATAN_7
    middle = ((high * square + _ATAN_6) * square + _ATAN_5) * square + _ATAN_4
    return (((middle * square + _ATAN_3) * square + _ATAN_2) * square + _ATAN_1) * square + _ATAN_0
