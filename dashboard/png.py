"""8-bit PNG pictures of float images with a colour map."""

from __future__ import annotations

import io
from enum import StrEnum

import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image

COLOURS = 255
TRANSPARENT = 255


class ColourMap(StrEnum):
    """Colour maps that can be asked for; matplotlib's, all but the last two perceptually uniform."""

    GRAY = "gray"
    VIRIDIS = "viridis"
    CIVIDIS = "cividis"
    MAGMA = "magma"
    TWILIGHT = "twilight"
    BLUE_RED = "RdBu_r"


def encode_png(values: npt.NDArray[np.floating], limits: tuple[float, float], colour_map: ColourMap) -> bytes:
    """Return a palette PNG of `values` (y, x): 255 colours from the lower to the upper limit, NaN transparent.

    Value v gets colour floor(255 · (v − lower) / (upper − lower)), clipped to 0 … 254.
    """
    lower, upper = limits
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = np.clip((values - lower) / (upper - lower) * COLOURS, 0, COLOURS - 1)
    # between limits that are infinitely far apart there is no place for a value
    is_shown = np.isfinite(values) & ~np.isnan(scaled)
    indices = np.where(is_shown, scaled, TRANSPARENT).astype(np.uint8)
    image = Image.fromarray(indices, mode="P")
    image.putpalette(palette(colour_map).tobytes(), rawmode="RGB")
    file = io.BytesIO()
    image.save(file, "PNG", transparency=TRANSPARENT)
    return file.getvalue()


def palette(colour_map: ColourMap) -> npt.NDArray[np.uint8]:
    """Return uint8 (256, 3): the 255 colours, then one for transparent pixels."""
    colours = matplotlib.colormaps[colour_map](np.linspace(0, 1, COLOURS), bytes=True)[:, :3]
    return np.vstack([colours, np.zeros((1, 3), np.uint8)]).astype(np.uint8)


def colour_bar_png(colour_map: ColourMap) -> bytes:
    """Return a PNG, 255 pixels wide and 1 high, with the highest colour on the right."""
    return encode_png(np.arange(COLOURS)[None] + 0.5, (0, COLOURS), colour_map)
