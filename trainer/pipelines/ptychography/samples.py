"""Frames with their patches, as they arrive."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.finite import finite_rows
from ptychoflow.streaming.messages import ScanStart
from ptychoflow.trainer.interface.sample_format import SampleFormat, dtype_name, shape_fault
from ptychoflow.trainer.pipelines.ptychography.pipeline import FIELDS

REJECTED_DTYPES = ("bool", "complex64", "complex128")


class FrameSamples(SampleFormat):
    """The samples of a scan.

    Args:
        scan: announces the shapes.
    """

    fields = FIELDS
    network_input = "diffraction"

    def __init__(self, scan: ScanStart) -> None:
        self._scan = scan

    def fault(self, arrays: Arrays, *, dtype: str | None) -> str | None:
        """Return why none of a message's samples can be used, or None."""
        count = len(arrays["index"])
        shapes = {
            "role": (count,),
            "diffraction": (count, *self._scan.frame_shape_px),
            "amplitude": (count, *self._scan.target_shape_px),
            "phase": (count, *self._scan.target_shape_px),
        }
        if (fault := shape_fault(arrays, shapes)) is not None:
            return fault
        found = dtype_name(arrays["diffraction"].dtype)
        if found in REJECTED_DTYPES or found != (dtype or found):
            return f"diffraction is {found}, expected {dtype or 'counts'}"
        if arrays["amplitude"].dtype != np.float16 or arrays["phase"].dtype != np.float16:
            return "amplitude and phase must be float16"
        return None

    def values_usable(self, arrays: Arrays) -> npt.NDArray[np.bool_]:
        """Return which samples hold finite values throughout, bool (n,)."""
        finite: npt.NDArray[np.bool_] = np.logical_and.reduce([finite_rows(arrays[name]) for name in FIELDS])
        return finite
