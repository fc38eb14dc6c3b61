"""Serves frames over PvAccess as areaDetector does."""

from __future__ import annotations

import threading
import time

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.detectors.compression import encode
from ptychoflow.acquisition.detectors.interface import POLL_S, Simulator
from ptychoflow.acquisition.detectors.ntndarray.decoder import CODECS, PVDATA_TYPES
from ptychoflow.acquisition.detectors.ntndarray.settings import NtndarraySimulatorSettings
from ptychoflow.acquisition.scan import Perspective
from ptychoflow.streaming.libraries import library
from ptychoflow.streaming.pvaccess import serve_channels

SUBSCRIBED_S = 0.3
"""A subscription follows its channel by this time; PvAccess does not tell."""
LINGER_S = 0.5
"""What waits in the server has left by then."""
UNIONS = {"i1": "byte", "i2": "short", "i4": "int", "u1": "ubyte", "u2": "ushort", "u4": "uint", "f4": "float"}
"""Field of the value for each type of pixels, without `Value`."""


class NtndarraySimulator(Simulator):
    """A PvAccess server with the channels that its settings name.

    Raises:
        UserError: without p4p; if the port is in use or the host is not this machine's.
    """

    def __init__(self, settings: NtndarraySimulatorSettings) -> None:
        p4p, types = (library(name, extra="epics") for name in ("p4p", "p4p.nt"))
        shared = library("p4p.server.thread", extra="epics").SharedPV
        self._settings = settings
        self._value, self._type = p4p.Value, types.NTNDArray.buildType()
        self._image = shared(initial=self._value(self._type, {}))
        self._acquire = shared(nt=types.NTEnum(), initial={"index": 0, "choices": ["Done", "Acquire"]})
        self._watched, self._closed = threading.Event(), threading.Event()
        self._image.onFirstConnect(lambda _pv: self._watched.set())
        self._image.onLastDisconnect(lambda _pv: self._watched.clear())
        self._next_id, self._series = settings.first_unique_id, 0
        self._perspective: Perspective | None = None
        channels = {"Pva1:Image": self._image, "cam1:Acquire_RBV": self._acquire}
        self._server, self.port = serve_channels(
            {settings.prefix + name: pv for name, pv in channels.items()},
            host=settings.host,
            port=settings.port,
            choose="choose another one, or 0 for a free one",
        )

    def begin(self, perspective: Perspective, *, series: int) -> None:
        """Begin a series. Raises `InterruptedError` if it is closed while nobody listened."""
        while not self._watched.wait(POLL_S):
            if self._closed.is_set():
                raise InterruptedError("asked to stop while nobody listened")
        self._closed.wait(SUBSCRIBED_S)
        self._perspective, self._series = perspective, series
        self._acquire.post({"index": 1}, timestamp=time.time())

    def send(self, index: int, frame: npt.NDArray[np.generic], position_m: tuple[float, float]) -> None:
        """Post a frame with its attributes."""
        position = [value / self._settings.unit.metres for value in position_m]
        attributes: dict[str, float | int] = {
            "SampleY": position[0],
            "SampleX": position[1],
            "ScanId": self._series,
            "FrameNumber": index,
        }
        if self._perspective is not None:
            attributes["Angle"] = float(self._perspective.angle_deg)
            attributes["Energy"] = float(self._perspective.geometry.energy_eV)
        seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        stamp = {"secondsPastEpoch": seconds, "nanoseconds": nanoseconds}
        frame = np.ascontiguousarray(frame, frame.dtype.newbyteorder("="))
        height, width = frame.shape
        union, parameters = UNIONS[frame.dtype.str[1:]], None
        values = frame.ravel()
        if codec := self._settings.compression:
            union, parameters = "ubyte", PVDATA_TYPES[frame.dtype.str]
            # areaDetector sends no header before bitshuffled pixels
            values = np.frombuffer(encode(frame, CODECS[codec], header=False), np.uint8)
        self._image.post(
            self._value(
                self._type,
                {
                    "value": (f"{union}Value", values),
                    "codec.name": codec.value,
                    "codec.parameters": parameters,
                    "compressedSize": values.nbytes,
                    "uncompressedSize": frame.nbytes,
                    "uniqueId": self._next_id,
                    "dataTimeStamp": stamp,
                    "timeStamp": stamp,
                    "dimension": [{"size": size, "fullSize": size, "binning": 1} for size in (width, height)],
                    "attribute": [{"name": name, "value": value} for name, value in attributes.items()],
                },
            )
        )
        self._next_id = (self._next_id + (1 << 31) + 1) % (1 << 32) - (1 << 31)

    def end(self, *, aborted: bool) -> None:
        """Stop acquiring; areaDetector does not say why."""
        self._acquire.post({"index": 0}, timestamp=time.time())

    def close(self) -> None:
        """Stop the server once what waits in it has left."""
        if not self._closed.is_set():
            self._closed.set()
            if self._watched.is_set():
                time.sleep(LINGER_S)
            self._server.stop()
