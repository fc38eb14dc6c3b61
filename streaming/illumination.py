"""What lights the object of a perspective."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ptychoflow.streaming.codec import Arrays, MalformedMessage

MODES_MAX = 64


@dataclass(frozen=True)
class Illumination:
    """The probe (mode, y, x), of any brightness, and which pixels (y, x) of a frame are not to be looked at."""

    probe: npt.NDArray[np.complex64]
    mask: npt.NDArray[np.bool_] | None


def illumination_from_arrays(arrays: Arrays, frame_shape_px: tuple[int, int]) -> Illumination:
    """Take the arrays of a `Probe` message.

    Raises:
        MalformedMessage: the probe is missing, dark or not finite, or an array is not of the frames' shape.
    """
    probe, mask = arrays.get("probe"), arrays.get("mask")
    if probe is None or probe.dtype != np.complex64 or probe.ndim != 3 or probe.shape[1:] != frame_shape_px:
        raise MalformedMessage(f"probe: no complex64 array of {frame_shape_px} px")
    if not 1 <= len(probe) <= MODES_MAX or not np.isfinite(probe).all() or not probe.any():
        raise MalformedMessage(f"probe: {len(probe)} modes, dark or not finite")
    if mask is not None and (mask.dtype != np.bool_ or mask.shape != frame_shape_px):
        raise MalformedMessage(f"probe: the mask is {mask.dtype} {mask.shape}")
    return Illumination(probe, mask)
