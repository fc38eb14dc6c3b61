"""The picture of a diffraction frame."""

from __future__ import annotations

import numpy as np

from ptychoflow.dashboard.mosaics import FloatImage
from ptychoflow.dashboard.png import ColourMap, encode_png


def frame_png(diffraction: FloatImage) -> bytes:
    """Return a frame (y, x) on a logarithmic scale, log10(1 + counts), from 0 to its brightest pixel."""
    values = np.log10(1 + np.maximum(diffraction, 0))
    return encode_png(values, (0.0, max(float(values.max()), 1e-6)), ColourMap.MAGMA)
