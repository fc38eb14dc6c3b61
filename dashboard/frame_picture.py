"""The picture of a diffraction frame."""

from __future__ import annotations

import math

import numpy as np

from ptychoflow.dashboard.mosaics import FloatImage
from ptychoflow.dashboard.png import ColourMap, encode_png


def frame_png(diffraction: FloatImage) -> bytes:
    """Return a frame (y, x) on a logarithmic scale, log10(1 + counts), from 0 to its brightest pixel.

    Pixels that are not finite are transparent.
    """
    values = np.log10(1 + np.maximum(diffraction, 0))
    return encode_png(values, (0.0, max(math.log10(1 + brightest_pixel(diffraction)), 1e-6)), ColourMap.MAGMA)


def brightest_pixel(diffraction: FloatImage) -> float:
    """Return the most counts of a pixel, of those that are finite; 0 without any."""
    return float(diffraction.max(initial=0.0, where=np.isfinite(diffraction)))
