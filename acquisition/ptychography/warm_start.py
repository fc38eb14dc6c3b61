"""From the image of a perspective that a network made to what its phase retrieval starts from."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.scan import ObjectImage
from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.messages import FirstPassImage


def object_to_start_from(image: FirstPassImage, arrays: Arrays) -> ObjectImage | None:
    """Return the object that the edge has sent; None if the arrays are no image."""
    if set(arrays) != {"amplitude", "phase"}:
        return None
    amplitude, phase = arrays["amplitude"], arrays["phase"]
    if amplitude.ndim != 2 or amplitude.shape != phase.shape or not amplitude.size:
        return None
    if any(array.dtype.kind != "f" for array in (amplitude, phase)):
        return None
    return as_object(amplitude, phase, image.origin_px)


def as_object(amplitude: npt.NDArray[Any], phase: npt.NDArray[Any], origin_px: tuple[int, int]) -> ObjectImage:
    """Return an image (y, x) as an object, void where it shows nothing (NaN)."""
    with np.errstate(invalid="ignore"):
        values = (amplitude * np.exp(1j * phase.astype(np.float32))).astype(np.complex64)
    origin_y, origin_x = origin_px
    return ObjectImage(np.where(np.isfinite(values), values, np.complex64(1)), (float(origin_y), float(origin_x)))
