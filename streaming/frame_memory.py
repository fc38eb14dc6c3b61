"""How many frames are held in memory at once: those of a detector with 16 million pixels take as much as a thousand.

The others lie in files of raw pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

PART_BYTES = 1 << 26
"""Frames that go through memory together, at most."""


def frames_within(limit_bytes: int, shape_px: Sequence[int], pixel_bytes: int) -> int:
    """Return how many frames of `shape_px` (y, x) take no more memory than the limit; one at least."""
    return max(1, limit_bytes // max(1, int(np.prod(shape_px)) * pixel_bytes))


def map_frames(path: Path, shape: Sequence[int], dtype: str) -> npt.NDArray[Any]:
    """Return the frames (n, y, x) of a file of raw pixels, read-only. They can still be read when it was removed.

    Raises:
        OSError: there is no such file.
    """
    # An empty file cannot be mapped.
    return np.memmap(path, dtype, "r", shape=tuple(shape)) if np.prod(shape) else np.zeros(shape, dtype)
