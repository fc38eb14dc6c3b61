"""How many frames are held in memory at once: those of a detector with 16 million pixels take as much as a thousand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PART_BYTES = 1 << 26
"""Frames that go through memory together, at most."""


def frames_within(limit_bytes: int, shape_px: Sequence[int], pixel_bytes: int) -> int:
    """Return how many frames of `shape_px` (y, x) take no more memory than the limit; one at least."""
    return max(1, limit_bytes // max(1, int(np.prod(shape_px)) * pixel_bytes))
