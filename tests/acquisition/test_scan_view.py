"""What people are shown of a scan: frames made small enough, and where the probe has been."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ptychoflow.acquisition.ptychography.scan_view import ScanView, bin_frame
from ptychoflow.acquisition.scan import FrameBatch
from ptychoflow.streaming.events import AnyEvent, PositionsTaken


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


class Listener:
    """Takes events in a telemetry sender's place."""

    def __init__(self) -> None:
        self.heard: list[tuple[AnyEvent, dict[str, npt.NDArray[Any]]]] = []

    def send(self, event: AnyEvent, arrays: dict[str, npt.NDArray[Any]]) -> None:
        self.heard.append((event, arrays))


def test_positions_that_come_with_their_frames_say_whose_they_are() -> None:
    listener = Listener()
    view = ScanView(listener)
    perspective = SimpleNamespace(index=4, angle_deg=0.0, probe=None, known_positions_px=None, most_frames=None)
    view.start(perspective)
    batches = [np.array([0, 1, 4]), np.array([5, 9]), np.array([10])]
    for indices in batches:
        positions = np.stack([indices, 2 * indices], axis=1).astype(np.float64)
        view.show(perspective, FrameBatch(indices, positions, np.ones((len(indices), 4, 4), np.uint16)))
    view.end(perspective)
    taken = [arrays for event, arrays in listener.heard if event == PositionsTaken(4)]
    indices = np.concatenate([arrays["indices"] for arrays in taken])
    assert (indices.tolist(), indices.dtype) == ([0, 1, 4, 5, 9, 10], np.int32)
    positions_px = np.concatenate([arrays["positions_px"] for arrays in taken])
    np.testing.assert_array_equal(positions_px, np.stack([indices, 2 * indices], axis=1))
