"""Frames made small enough to be shown."""

from __future__ import annotations

import numpy as np
import pytest

from ptychoflow.acquisition.ptychography.scan_view import bin_frame


@pytest.mark.parametrize("length", [5, 256, 257, 300, 512, 513, 1030, 1065])
def test_the_middle_stays_in_the_middle_and_no_side_is_too_long(length: int) -> None:
    frame = np.zeros((length, length), np.uint32)
    frame[length // 2, length // 2] = 7
    binned, side = bin_frame(frame)
    assert max(binned.shape) <= 256
    assert side == -(-length // 256)
    assert np.argwhere(binned).tolist() == [[binned.shape[0] // 2, binned.shape[1] // 2]]
    assert binned.sum() == 7


def test_squares_are_summed() -> None:
    frame = np.arange(16, dtype=np.uint16).reshape(4, 4)
    binned, side = bin_frame(frame, max_side_px=2)
    assert (binned.tolist(), side) == ([[10.0, 18.0], [42.0, 50.0]], 2)
    small, side = bin_frame(frame, max_side_px=4)
    assert (small.tolist(), small.dtype, side) == (frame.tolist(), np.float32, 1)
