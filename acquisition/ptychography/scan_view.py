"""Shows people what is being scanned: where the probe goes, and the newest frame."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.binning import bin_frame
from ptychoflow.acquisition.scan import Perspective
from ptychoflow.streaming.events import FrameTaken, PerspectiveStarted
from ptychoflow.streaming.telemetry import TelemetrySender

FRAME_PERIOD_S = 0.5


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
