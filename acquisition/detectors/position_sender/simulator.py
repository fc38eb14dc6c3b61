"""Sends the positions of a scan as a user's program does."""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.detectors.interface import POLL_S, Simulator
from ptychoflow.acquisition.detectors.position_sender.sender import PositionSender
from ptychoflow.acquisition.detectors.position_sender.settings import PositionSenderSimulatorSettings
from ptychoflow.acquisition.scan import Perspective


class _ClosableSender(PositionSender):
    """Waits for a listener until another thread says that it is to be closed."""

    def __init__(self, settings: PositionSenderSimulatorSettings) -> None:
        self.closing = threading.Event()
        super().__init__(settings.host, settings.port, keys_dir=settings.keys_dir, timeout_s=None)

    def ready(self, timeout_s: float) -> bool:
        if self.closing.is_set():
            raise InterruptedError("nobody listened for positions")
        return super().ready(min(timeout_s, POLL_S))


class PositionSenderSimulator(Simulator):
    """Sends every position by itself."""

    def __init__(self, settings: PositionSenderSimulatorSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._sender = _ClosableSender(settings)

    def begin(self, perspective: Perspective, *, series: int) -> None:
        """Begin a run of positions when somebody listens.

        Raises:
            InterruptedError: closed while nobody did.
        """
        total = len(perspective) * self._settings.samples_per_frame
        name = str(series) if self._settings.series else None
        with self._lock:
            self._sender.begin(series=name, total=total, first=self._settings.first_sample)

    def send(self, index: int, frame: npt.NDArray[np.generic], position_m: tuple[float, float]) -> None:
        """Send the samples at a frame; wait while nobody takes them.

        Raises:
            InterruptedError: closed meanwhile.
        """
        count = self._settings.samples_per_frame
        with self._lock:
            self._sender.send([position_m] * count, first=self._settings.first_sample + index * count)

    def end(self, *, aborted: bool) -> None:
        """End the run of positions.

        Raises:
            InterruptedError: closed while nobody took that.
        """
        with self._lock:
            self._sender.end(complete=not aborted)

    def close(self) -> None:
        """Send what is left and close the socket; may be called from any thread."""
        self._sender.closing.set()
        with self._lock:
            self._sender.close()
