"""Frames with their patches, as they arrive."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.messages import ScanStart
from ptychoflow.trainer.interface.sample_format import SampleFormat, shape_fault
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
        found = arrays["diffraction"].dtype.name
        if found in REJECTED_DTYPES or found != (dtype or found):
            return f"diffraction is {found}, expected {dtype or 'counts'}"
        if arrays["amplitude"].dtype != np.float16 or arrays["phase"].dtype != np.float16:
            return "amplitude and phase must be float16"
        return None

    def values_usable(self, arrays: Arrays) -> npt.NDArray[np.bool_]:
        """Return which samples hold finite values throughout, bool (n,)."""
        mask = np.ones(len(arrays["index"]), bool)
        for name in FIELDS:
            if np.issubdtype(arrays[name].dtype, np.floating):
                mask &= np.isfinite(arrays[name]).all(axis=(1, 2))
        return mask
