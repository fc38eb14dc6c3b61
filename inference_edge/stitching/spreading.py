"""The inner loops of stitching, compiled: spread patches over a canvas with bilinear weights, and draw the canvas.

Each row of a patch is read once, and each row of the canvas is read and written once per patch; cosine and sine are
computed on the way. The shares of a value that is spread over four pixels add up to 1, so that a patch has weight 1 on
all pixels but those of its border: weights are counted, and only the border's are added. Both loops work on strips of
rows, so that threads can own a part of a canvas each: every pixel is computed in the same order and by the same
operations however many there are. Rows are addressed by unsigned offsets into flat arrays: a slice costs as much as
thirty pixels, and a signed index is checked for each.

Sums are float32, as what they are sums of: what is moved is what stitching costs. A mean over n patches is off by 3e-8
of its value times n at most (N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2002, equation 4.4), near
that only where all say the same; a scan covers a pixel some hundred times.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from ptychoflow.inference_edge.stitching.row_owners import ALL_ROWS, Strips

COSINE, SINE, AMPLITUDE = range(3)
"""Layers of a canvas. Without the last one, amplitudes are 1 everywhere."""
LAYERS_WITHOUT_AMPLITUDE, LAYERS = 2, 3
COUNT, WEIGHT = range(2)
"""What is kept of the borders of patches that cover a pixel: how many they are, and the sum of their weights."""


class Canvas(NamedTuple):
    """What patches are added to; as `add_patches` takes it."""

    sums: npt.NDArray[np.float32]
    coverage: npt.NDArray[np.int32]
    borders: npt.NDArray[np.float32]


def blank_canvas(layers: int, shape_px: tuple[int, int]) -> Canvas:
    """Return a canvas that nothing was added to."""
    return Canvas(
        np.zeros((layers, *shape_px), np.float32), np.zeros(shape_px, np.int32), np.zeros((*shape_px, 2), np.float32)
    )


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
    sums: npt.NDArray[np.float32],
    coverage: npt.NDArray[np.int32],
    borders: npt.NDArray[np.float32],
    amplitude: npt.NDArray[np.float32],
    phase: npt.NDArray[np.float32],
    corners: npt.NDArray[np.int64],
    beyond: npt.NDArray[np.float32],
    strips: Strips,
) -> None:
    """Add patches to strips of a canvas, in place; releases the interpreter's lock.

    Args:
        sums: (2 or 3, canvas y, canvas x): weight × cos(phase), weight × sin(phase), weight × amplitude; all arrays
            are C-contiguous.
        coverage: (canvas y, canvas x), how many patches reach each pixel.
        borders: (canvas y, canvas x, 2), how many of them with a weight below 1, and the sum of those weights.
        amplitude: (n, y, x); (0, y, x) where it is 1 everywhere. Otherwise `sums` has three layers.
        phase: (n, y, x) in radians, finite and less than some thousand turns.
        corners: (n, 2), the canvas pixel (y, x) that pixel (0, 0) of each patch lies on or behind; y + 1 rows and
            x + 1 columns from there must lie on the canvas, which is not checked.
        beyond: (n, 2), how far behind, within [0, 1) pixels.
        strips: of the canvas, to which is added.
    """
    height_px, owner, owners = strips
    for strip in range(owner, 1 + (sums.shape[1] - 1) // height_px, owners):
        rows = strip * height_px, (strip + 1) * height_px
        _add_to_band(sums, coverage, borders, amplitude, phase, corners, beyond, rows)


@_compiled
def _add_to_band(
    sums: Any, coverage: Any, borders: Any, amplitude: Any, phase: Any, corners: Any, beyond: Any, rows: Any
) -> None:
    """Add to the rows from the first of `rows` up to and without the second."""
    count, height, width = phase.shape
    layers, canvas_height, canvas_width = sums.shape
    layer = np.uint64(canvas_height * canvas_width)
    totals, covered, bordering = sums.reshape(-1), coverage.reshape(-1), borders.reshape(-1)
    phases, amplitudes = phase.reshape(-1), amplitude.reshape(-1)
    # with a zero on either side, so that a value and its left neighbour are there for all columns
    cosine, sine = np.zeros(width + 2, np.float32), np.zeros(width + 2, np.float32)
    size = np.ones(width + 2, np.float32)
    size[0] = size[-1] = 0
    cosine_above, sine_above = np.zeros(width + 1, np.float32), np.zeros(width + 1, np.float32)
    size_above = np.zeros(width + 1, np.float32)
    has_size = layers == LAYERS
    patch_width = np.uint64(width)
    for n in range(count):
        top, left = corners[n]
        first, stop = max(rows[0] - top, 0), min(rows[1] - top, height + 1)
        if first >= stop:
            continue
        far_y, far_x = beyond[n]
        near_y, near_x = _ONE - far_y, _ONE - far_x
        shares = (near_y, far_y, near_x, far_x)
        covered_height, covered_width = height + (far_y > 0), np.uint64(width + (far_x > 0))
        cosine_above[:], sine_above[:], size_above[:] = 0, 0, 0
        if has_size and not len(amplitude):
            size[1:-1] = 1
        # the row above the band is computed once more than it is added
        for y in range(max(first - 1, 0), stop):
            source, target = np.uint64((n * height + y) * width), np.uint64((top + y) * canvas_width + left)
            if y < height:
                _phasors(phases, source, patch_width, cosine, sine)
                if len(amplitude):
                    _copy(amplitudes, source, patch_width, size)
            else:
                cosine[:], sine[:], size[:] = 0, 0, 0
            if y < first:
                _across(cosine, shares, cosine_above)
                _across(sine, shares, sine_above)
                _across(size, shares, size_above)
                continue
            _add_row(cosine, shares, cosine_above, totals, target)
            _add_row(sine, shares, sine_above, totals, target + layer)
            if has_size:
                _add_row(size, shares, size_above, totals, target + layer + layer)
            if y < covered_height:
                _count(covered, target, covered_width)
                weight_y = near_y if y == 0 else far_y if y == height else _ONE
                _add_border(bordering, target, covered_width, weight_y, shares)


@_compiled
def draw_rows(
    sums: npt.NDArray[np.float32],
    coverage: npt.NDArray[np.int32],
    borders: npt.NDArray[np.float32],
    drawn: npt.NDArray[np.float32],
    rows: tuple[int, int],
    columns: tuple[int, int],
    strips: Strips,
) -> None:
    """Compute amplitude and phase of strips of a part of a canvas; releases the interpreter's lock.

    Args:
        sums: as `add_patches` fills them.
        coverage: likewise.
        borders: likewise.
        drawn: (2, canvas y, canvas x), gets amplitude and phase (radians within ±π); NaN where nothing covers a pixel.
        rows: the first row of the part, and the first one behind it.
        columns: likewise.
        strips: of the canvas, as `add_patches` takes them.
    """
    height_px, owner, owners = strips
    for strip in range(owner, 1 + (rows[1] - 1) // height_px, owners):
        band = max(rows[0], strip * height_px), min(rows[1], (strip + 1) * height_px)
        _draw_band(sums, coverage, borders, drawn, band, columns)


@_compiled
def _draw_band(sums: Any, coverage: Any, borders: Any, drawn: Any, rows: Any, columns: Any) -> None:
    layers, canvas_height, canvas_width = sums.shape
    layer = np.uint64(canvas_height * canvas_width)
    totals, covered, images = sums.reshape(-1), coverage.reshape(-1), drawn.reshape(-1)
    bordering = borders.reshape(-1)
    width = np.uint64(columns[1] - columns[0])
    for y in range(rows[0], rows[1]):
        at = np.uint64(y * canvas_width + columns[0])
        if layers == LAYERS:
            _divide(totals, layer + layer, covered, bordering, at, width, images)
        else:
            for x in range(width):
                images[at + x] = _ONE if covered[at + x] > 0 else _NAN
        _angles(totals, layer, covered, at, width, images)


def weights(coverage: npt.NDArray[np.int32], borders: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the sum of the weights on each pixel, (canvas y, canvas x), from what `add_patches` fills."""
    return (coverage - borders[..., COUNT] + borders[..., WEIGHT]).astype(np.float32)


def prepare_stitching() -> None:
    """Compile the loops, or load what was compiled before: what else the first frames would wait for."""
    # all of the types that a mosaic passes on: for others, the loops are compiled once more
    patch, nowhere = np.zeros((1, 1, 1), np.float32), np.zeros((1, 2))
    canvas = blank_canvas(LAYERS, (2, 2))
    add_patches(*canvas, patch, patch, nowhere.astype(np.int64), nowhere.astype(np.float32), ALL_ROWS)
    draw_rows(*canvas, np.zeros((2, 2, 2), np.float32), (0, 2), (0, 2), ALL_ROWS)


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
def _count(covered: Any, at: Any, width: Any) -> None:
    for x in range(width):
        covered[at + x] += 1


@_compiled
def _add_border(bordering: Any, at: Any, width: Any, weight_y: Any, shares: Any) -> None:
    """Add what of a row of a patch is its border: its ends, and all of it where the row has less than its weight."""
    _, _, near_x, far_x = shares
    start, stop = (at, at + width) if far_x == 0 else (at + _NEXT, at + width - _NEXT)
    if weight_y < _ONE:
        for place in range(start, stop):
            _border_on(bordering, place, weight_y)
    if far_x > 0:
        _border_on(bordering, at, weight_y * near_x)
        _border_on(bordering, stop, weight_y * far_x)


@_compiled
def _border_on(bordering: Any, place: Any, weight: Any) -> None:
    bordering[place + place] += _ONE
    bordering[place + place + _NEXT] += weight


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
def _divide(totals: Any, layer: Any, covered: Any, bordering: Any, at: Any, width: Any, images: Any) -> None:
    for x in range(at, at + width):
        weight = covered[x] - bordering[x + x] + bordering[x + x + _NEXT]
        images[x] = totals[layer + x] / weight if covered[x] > 0 else _NAN


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
