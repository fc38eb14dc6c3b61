"""Sends the positions of a scan as a user's program does."""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.detectors.interface import POLL_S, Simulator
from ptychoflow.acquisition.detectors.position_sender.sender import PositionSender
from ptychoflow.acquisition.detectors.position_sender.settings import PositionSenderSimulatorSettings
from ptychoflow.acquisition.scan import Perspective


class PositionSenderSimulator(Simulator):
    """Sends every position by itself."""

    def __init__(self, settings: PositionSenderSimulatorSettings) -> None:
        self._settings = settings
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._sender = PositionSender(settings.host, settings.port, keys_dir=settings.keys_dir, timeout_s=None)

    def begin(self, perspective: Perspective, *, series: int) -> None:
        """Begin a run of positions when somebody listens.

        Raises:
            InterruptedError: closed while nobody did.
        """
        while not self._closed.is_set():
            with self._lock:
                if not self._closed.is_set() and self._sender.ready(POLL_S):
                    total = len(perspective) * self._settings.samples_per_frame
                    name = str(series) if self._settings.series else None
                    self._sender.begin(series=name, total=total, first=self._settings.first_sample)
                    return
        raise InterruptedError("nobody listened for positions")

    def send(self, index: int, frame: npt.NDArray[np.generic], position_m: tuple[float, float]) -> None:
        """Send the samples at a frame."""
        count = self._settings.samples_per_frame
        self._sender.send([position_m] * count, first=self._settings.first_sample + index * count)

    def end(self, *, aborted: bool) -> None:
        """End the run of positions."""
        self._sender.end(complete=not aborted)

    def close(self) -> None:
        """Send what is left and close the socket."""
        self._closed.set()
        with self._lock:
            self._sender.close()
