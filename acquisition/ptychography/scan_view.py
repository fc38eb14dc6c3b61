"""Shows people what is being scanned: where the probe goes, and the newest frame."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.scan import Perspective
from ptychoflow.streaming.events import FrameTaken, PerspectiveStarted
from ptychoflow.streaming.telemetry import TelemetrySender

FRAME_PERIOD_S = 0.5
MAX_SIDE_PX = 256


class ScanView:
    """Sends the events that a page draws the scan from."""

    def __init__(self, telemetry: TelemetrySender) -> None:
        self._telemetry = telemetry
        self._due_s = 0.0

    def start(self, perspective: Perspective) -> None:
        """Show where the probe will go."""
        arrays: dict[str, npt.NDArray[Any]] = {"positions_px": perspective.positions_px.astype(np.float32)}
        if perspective.probe is not None:
            arrays["probe"] = perspective.probe.astype(np.complex64)
        self._telemetry.send(PerspectiveStarted(perspective.index, perspective.angle_deg), arrays)
        self._due_s = 0.0

    def show(self, perspective: Perspective, index: int, frame: npt.NDArray[np.generic]) -> None:
        """Show a frame (y, x), unless one was shown a moment ago."""
        if time.monotonic() < self._due_s:
            return
        self._due_s = time.monotonic() + FRAME_PERIOD_S
        binned, side_px = bin_frame(frame)
        self._telemetry.send(FrameTaken(perspective.index, index, side_px), {"diffraction": binned})


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
