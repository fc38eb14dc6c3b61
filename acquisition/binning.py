"""Frames made smaller by summing squares of pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

MAX_SIDE_PX = 256


def bin_frame(frame: npt.NDArray[np.generic], max_side_px: int = MAX_SIDE_PX) -> tuple[npt.NDArray[np.float32], int]:
    """Return the frame summed over squares so that no side exceeds `max_side_px`, float32, and the squares' side.

    The middle pixel (y // 2, x // 2) of the frame falls into the middle pixel of the result; pixels at the border
    that fill no square are left out.
    """
    side = -(-max(frame.shape) // max_side_px)
    if side == 1:
        return frame.astype(np.float32), 1
    before = [(length // 2) % side for length in frame.shape]
    counts = [(length - first) // side for length, first in zip(frame.shape, before, strict=True)]
    rows, columns = (slice(first, first + n * side) for first, n in zip(before, counts, strict=True))
    squares = frame[rows, columns].astype(np.float32).reshape(counts[0], side, counts[1], side)
    return squares.sum(axis=(1, 3)), side
