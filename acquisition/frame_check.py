"""Frames as they travel, and which of them cannot be used."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

COUNT_DTYPES = (np.dtype(np.uint8), np.dtype(np.uint16))
"""Counts that every part computes with directly; other dtypes travel as float32."""


def as_streamed(frames: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return frames in the dtype that they travel in: uint8 and uint16 as they are, everything else as float32."""
    return frames if frames.dtype in COUNT_DTYPES else frames.astype(np.float32)


def usable(frames: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return which frames (n, y, x) hold nothing but finite counts of at least zero, bool (n,)."""
    if np.issubdtype(frames.dtype, np.unsignedinteger):
        return np.ones(len(frames), dtype=bool)
    return np.asarray((np.isfinite(frames) & (frames >= 0)).all(axis=(1, 2)))
