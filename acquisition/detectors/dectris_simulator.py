"""What simulated DECTRIS detectors have in common, whichever protocol they speak."""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.detectors.dectris_settings import DectrisSimulatorSettings
from ptychoflow.acquisition.detectors.interface import Part, Simulator
from ptychoflow.acquisition.detectors.zmq_push import PushSocket
from ptychoflow.acquisition.scan import Perspective

log = logging.getLogger(__name__)

Pixels = npt.NDArray[np.generic]
PIXEL_TYPES = (np.uint8, np.uint16, np.uint32)


@dataclass(frozen=True)
class SimulatedSeries:
    """A series that is being sent."""

    number: int
    dtype: np.dtype[np.generic]
    begun_ns: int

    @property
    def elapsed_ns(self) -> int:
        """Return how long ago it began."""
        return time.monotonic_ns() - self.begun_ns


class DectrisSimulator(Simulator):
    """Sends scans as a detector. An aborted series just ends, as the protocols have no word for it.

    Frames that are not of 8, 16 or 32 bit without sign are sent as whole counts of 32 bit; what is no count becomes the
    largest value, which marks pixels that see nothing.

    Raises:
        UserError: it cannot listen where the settings say, or a library is not installed.
    """

    def __init__(self, settings: DectrisSimulatorSettings) -> None:
        self._socket = PushSocket(
            host=settings.host,
            port=settings.port,
            high_water_mark=settings.high_water_mark,
            linger_s=settings.linger_s,
            loses_unheard=settings.loses_unheard,
        )
        self._series = SimulatedSeries(0, np.dtype(np.uint32), 0)

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._socket.port

    def begin(self, perspective: Perspective, *, series: int) -> None:
        """Begin a series; wait until somebody listens.

        Raises:
            InterruptedError: closed while nobody listened.
        """
        stored = perspective.read(0, 1).dtype
        dtype = stored if stored in PIXEL_TYPES else np.dtype(np.uint32)
        if stored.kind == "f":
            log.warning("the frames are of %s: a detector sends whole counts, and they are rounded", stored)
        self._series = SimulatedSeries(series, dtype, time.monotonic_ns())
        self._socket.send(self._beginning(perspective, self._series))

    def send(self, index: int, frame: Pixels, position_m: tuple[float, float]) -> None:
        """Send frame `index`; wait while the receiver does not take it.

        Raises:
            InterruptedError: closed meanwhile.
        """
        self._socket.send(self._image(index, _counts(frame, self._series.dtype), self._series))

    def end(self, *, aborted: bool) -> None:
        """End the series.

        Raises:
            InterruptedError: closed while the receiver did not take it.
        """
        if not aborted:
            self._socket.send(self._ending(self._series))

    def close(self) -> None:
        """Send what is left, for `linger_s` at most, and close the socket; may be called from any thread."""
        self._socket.close()

    @abstractmethod
    def _beginning(self, perspective: Perspective, series: SimulatedSeries) -> Sequence[Part]:
        """Return the message that begins a series."""

    @abstractmethod
    def _image(self, index: int, frame: Pixels, series: SimulatedSeries) -> Sequence[Part]:
        """Return the message with a frame of the series' dtype."""

    @abstractmethod
    def _ending(self, series: SimulatedSeries) -> Sequence[Part]:
        """Return the message that ends a series."""


def _counts(frame: Pixels, dtype: np.dtype[np.generic]) -> Pixels:
    if frame.dtype == dtype:
        return frame
    most = np.iinfo(dtype).max  # type: ignore[type-var]
    counts = np.rint(frame.astype(np.float64))
    counts[~(counts >= 0)] = most
    return np.minimum(counts, most).astype(dtype)
