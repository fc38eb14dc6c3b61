"""Shows people what is being scanned: where the probe goes, and the newest frame."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.binning import bin_frame
from ptychoflow.acquisition.scan import FrameBatch, OpenEndedPerspective
from ptychoflow.streaming.events import FrameTaken, PerspectiveStarted, PositionsTaken
from ptychoflow.streaming.telemetry import TelemetrySender

FRAME_PERIOD_S = 0.5


class ScanView:
    """Sends the events that a page draws the scan from."""

    def __init__(self, telemetry: TelemetrySender) -> None:
        self._telemetry = telemetry
        self._due_s = 0.0
        self._positions_come = False
        """Whether the source tells positions only as it goes."""
        self._new_indices: list[npt.NDArray[np.int32]] = []
        self._new_positions_px: list[npt.NDArray[np.float32]] = []

    def start(self, perspective: OpenEndedPerspective) -> None:
        """Show where the probe will go, as far as that is known."""
        known_px = perspective.known_positions_px
        self._positions_come = known_px is None
        self._forget_new()
        arrays: dict[str, npt.NDArray[Any]] = {
            "positions_px": np.zeros((0, 2), np.float32) if known_px is None else known_px.astype(np.float32)
        }
        if perspective.probe is not None:
            arrays["probe"] = perspective.probe.astype(np.complex64)
        self._telemetry.send(PerspectiveStarted(perspective.index, perspective.angle_deg), arrays)
        self._due_s = 0.0

    def show(self, perspective: OpenEndedPerspective, batch: FrameBatch) -> None:
        """Show the last frame of a batch and where the probe has been, unless something was shown a moment ago."""
        if self._positions_come:
            self._new_indices.append(batch.indices.astype(np.int32))
            self._new_positions_px.append(batch.positions_px.astype(np.float32))
        if time.monotonic() < self._due_s:
            return
        self._due_s = time.monotonic() + FRAME_PERIOD_S
        binned, side_px = bin_frame(batch.frames[-1])
        taken = FrameTaken(perspective.index, int(batch.indices[-1]), side_px, perspective.most_frames)
        self._telemetry.send(taken, {"diffraction": binned})
        self.end(perspective)

    def end(self, perspective: OpenEndedPerspective) -> None:
        """Show the rest of where the probe has been."""
        if self._new_positions_px:
            arrays: dict[str, npt.NDArray[Any]] = {
                "indices": np.concatenate(self._new_indices),
                "positions_px": np.concatenate(self._new_positions_px),
            }
            self._telemetry.send(PositionsTaken(perspective.index), arrays)
            self._forget_new()

    def _forget_new(self) -> None:
        self._new_indices, self._new_positions_px = [], []
