"""Pictures of stitched images: one channel each, with a colour bar and a scale bar."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

ROBUST_PERCENTILES = (0.5, 99.5)
CYCLIC_RANGE_RAD = 1.7 * math.pi
DPI = 120
IMAGE_WIDTH_IN = 5.0
LEAST_HEIGHT_IN, MOST_HEIGHT_IN, LEAST_WIDTH_IN = 1.6, 15.0, 1.0
"""Of the room for the image: a colour bar can be read, and a line scan stays a picture."""
MARGIN_IN, BAR_IN = 0.1, 0.2
BESIDE_IN = 1.5
"""For the colour bar with its numbers and its label."""


@dataclass(frozen=True)
class ColourScale:
    """Limits and colour map that pictures to be compared share."""

    lower: float
    upper: float
    colour_map: str


def amplitude_scale(values: npt.NDArray[np.floating]) -> ColourScale:
    """Grey between the robust limits of `values`, NaN ignored."""
    return ColourScale(*_robust_limits(values), "gray")


def phase_scale(values: npt.NDArray[np.floating]) -> ColourScale:
    """Like an amplitude's; the cyclic `twilight` over ±π where the phase uses nearly the whole circle."""
    lower, upper = _robust_limits(values)
    if upper - lower > CYCLIC_RANGE_RAD:
        return ColourScale(-math.pi, math.pi, "twilight")
    return ColourScale(lower, upper, "gray")


def difference_scale(values: npt.NDArray[np.floating]) -> ColourScale:
    """Blue below, white at and red above zero, symmetrical."""
    largest = max(abs(limit) for limit in _robust_limits(values))
    return ColourScale(-largest, largest, "RdBu_r")


def residual_scale(values: npt.NDArray[np.floating]) -> ColourScale:
    """Dark where frames are explained well, bright where they are not."""
    return ColourScale(*_robust_limits(values), "magma")


def write_picture(
    path: Path, values: npt.NDArray[np.floating], *, scale: ColourScale, label: str, pixel_size_m: tuple[float, float]
) -> None:
    """Write `values` (y, x) as PNG; NaN is left white. Row 0 is at the top."""
    height, width = values.shape
    aspect = pixel_size_m[0] / pixel_size_m[1]
    tallness = height * aspect / width
    height_in = min(IMAGE_WIDTH_IN * tallness, MOST_HEIGHT_IN)
    room_in = max(height_in, LEAST_HEIGHT_IN), max(height_in / tallness, LEAST_WIDTH_IN)
    # a layout that is computed would draw everything twice
    size_in = room_in[1] + BESIDE_IN, room_in[0] + 2 * MARGIN_IN
    figure = Figure(figsize=size_in)
    FigureCanvasAgg(figure)
    axes, beside = (
        figure.add_axes((left / size_in[0], MARGIN_IN / size_in[1], wide / size_in[0], 1 - 2 * MARGIN_IN / size_in[1]))
        for left, wide in ((MARGIN_IN, room_in[1]), (room_in[1] + 2 * MARGIN_IN, BAR_IN))
    )
    axes.set_axis_off()
    shown = axes.imshow(
        values, cmap=scale.colour_map, vmin=scale.lower, vmax=scale.upper, aspect=aspect, interpolation="nearest"
    )
    figure.colorbar(shown, cax=beside, label=label)
    _draw_scale_bar(axes, shape_px=values.shape, pixel_width_m=pixel_size_m[1], height_in=height_in)
    figure.savefig(path, dpi=DPI, format="png")


def _draw_scale_bar(axes: Axes, *, shape_px: tuple[int, int], pixel_width_m: float, height_in: float) -> None:
    """Draw it into the image's corner, or below an image that it would hide."""
    height, width = shape_px
    length_m = _round_length(width * pixel_width_m / 4)
    length_px = length_m / pixel_width_m
    inch = height / height_in
    left, bottom, thickness = 0.04 * width, height - 0.22 * inch, 0.06 * inch
    label_at, label_side = bottom - 0.11 * inch, "bottom"
    if height_in < LEAST_HEIGHT_IN / 2:
        bottom = height + 0.2 * inch
        label_at, label_side = bottom + 0.04 * inch, "top"
    bar = Rectangle((left, bottom - thickness), length_px, thickness, facecolor="white", edgecolor="black", lw=0.6)
    bar.set_clip_on(False)
    axes.add_artist(bar)
    axes.text(
        left + length_px / 2,
        label_at,
        f"{length_m * 1e6:g} µm",
        ha="center",
        va=label_side,
        bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.5},
    )


def _robust_limits(values: npt.NDArray[np.floating]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    lower, upper = (float(limit) for limit in np.percentile(finite, ROBUST_PERCENTILES))
    return (lower, upper) if upper > lower else (lower, lower + 1e-6)


def _round_length(length_m: float) -> float:
    """Return the largest of 1, 2, 5 × a power of ten that is not longer than `length_m`."""
    power = 10.0 ** math.floor(math.log10(length_m))
    return max(step * power for step in (1, 2, 5) if step * power <= length_m * (1 + 1e-9))
