"""From the edge's image of a perspective to what its phase retrieval starts from."""

from __future__ import annotations

import numpy as np

from ptychoflow.acquisition.scan import ObjectImage
from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.messages import FirstPassImage


def object_to_start_from(image: FirstPassImage, arrays: Arrays) -> ObjectImage | None:
    """Return the object, void where the edge saw nothing; None if the arrays are no image."""
    if set(arrays) != {"amplitude", "phase"}:
        return None
    amplitude, phase = arrays["amplitude"], arrays["phase"]
    if amplitude.ndim != 2 or amplitude.shape != phase.shape or not amplitude.size:
        return None
    if any(array.dtype.kind != "f" for array in (amplitude, phase)):
        return None
    with np.errstate(invalid="ignore"):
        values = (amplitude * np.exp(1j * phase.astype(np.float32))).astype(np.complex64)
    origin_y, origin_x = image.origin_px
    return ObjectImage(np.where(np.isfinite(values), values, np.complex64(1)), (float(origin_y), float(origin_x)))
