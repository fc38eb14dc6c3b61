"""Which arriving samples can be trained on, and why others cannot."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streaming.codec import Arrays
from streaming.messages import FrameRole, ScanStart
from trainer.pipelines.ptychography.pipeline import FIELDS

REJECTED_DTYPES = ("bool", "complex64", "complex128")


def batch_fault(arrays: Arrays, scan: ScanStart, *, frame_dtype: str | None) -> str | None:
    """Return why none of a message's samples can be used, or None.

    Args:
        arrays: the arrays of a `Samples` message with a valid `index`.
        scan: announces the shapes.
        frame_dtype: dtype of the frames so far; None before the first.
    """
    count = len(arrays["index"])
    expected = {
        "role": (count,),
        "diffraction": (count, *scan.frame_shape_px),
        "amplitude": (count, *scan.target_shape_px),
        "phase": (count, *scan.target_shape_px),
    }
    for name, shape in expected.items():
        if name not in arrays:
            return f"no array {name!r}"
        if arrays[name].shape != shape:
            return f"{name} has shape {arrays[name].shape}, expected {shape}"
    dtype = arrays["diffraction"].dtype.name
    if dtype in REJECTED_DTYPES or dtype != (frame_dtype or dtype):
        return f"diffraction is {dtype}, expected {frame_dtype or 'counts'}"
    if arrays["amplitude"].dtype != np.float16 or arrays["phase"].dtype != np.float16:
        return "amplitude and phase must be float16"
    return None


def usable(arrays: Arrays) -> npt.NDArray[np.bool_]:
    """Return bool (n,): samples whose values are all finite and whose role is to train or to validate."""
    role = arrays["role"]
    mask: npt.NDArray[np.bool_] = (role == FrameRole.TRAIN) | (role == FrameRole.VALIDATION)
    for name in FIELDS:
        if np.issubdtype(arrays[name].dtype, np.floating):
            mask &= np.isfinite(arrays[name]).all(axis=(1, 2))
    return mask
