"""Publishes documents as they come out of a bluesky proxy, and writes frames into growing HDF5."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import zmq

from ptychoflow.acquisition.detectors.bluesky_documents.settings import BlueskyDocumentsSimulatorSettings, Serializer
from ptychoflow.acquisition.detectors.hdf5_swmr.settings import Hdf5SwmrSimulatorSettings
from ptychoflow.acquisition.detectors.hdf5_swmr.simulator import Hdf5SwmrSimulator
from ptychoflow.acquisition.detectors.interface import POLL_S, Simulator
from ptychoflow.acquisition.scan import Perspective
from ptychoflow.streaming.errors import UserError

Serialize = Callable[[Mapping[str, Any]], bytes]
SERIALIZE: Mapping[Serializer, Serialize] = {
    Serializer.JSON: lambda document: json.dumps(document).encode(),
    Serializer.MSGPACK: msgspec.msgpack.encode,
}
LINGER_MS = 5_000


class BlueskyDocumentsSimulator(Simulator):
    """Sends the documents of a step scan: one event for every frame.

    Raises:
        UserError: it cannot listen where the settings say, or the folder cannot be made.
    """

    def __init__(self, settings: BlueskyDocumentsSimulatorSettings) -> None:
        self._settings = settings
        self._files: Hdf5SwmrSimulator | None = None
        if settings.folder is not None:
            self._files = Hdf5SwmrSimulator(
                Hdf5SwmrSimulatorSettings(folder=settings.folder, frames=settings.dataset, positions=None)
            )
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)  # tells of subscribers, unlike PUB
        self._socket.xpub_nodrop = True
        self._socket.ipv6 = ":" in settings.host
        try:
            self._socket.bind(f"tcp://{settings.host}:{settings.port or '*'}")
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise UserError(
                f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; choose another port or host"
            ) from error
        self.port = int(self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rsplit(":", 1)[1])
        """Where it listens."""
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._subscribed = False
        self._run = self._descriptor = self._resource = ""
        self._events = 0

    def begin(self, perspective: Perspective, *, series: int) -> None:
        """Begin a run; wait until somebody has subscribed.

        Raises:
            InterruptedError: closed while nobody had.
        """
        self._await_subscriber()
        self._run, self._descriptor, self._resource = (str(uuid.uuid4()) for _ in range(3))
        self._events = 0
        geometry = perspective.geometry
        start = {
            "uid": self._run,
            "scan_id": series,
            "plan_name": "scan",
            "num_points": len(perspective),
            "energy_eV": geometry.energy_eV,
            "angle_deg": perspective.angle_deg,
        }
        self._send("start", start)
        motor = {"dtype": "number", "shape": [], "dtype_numpy": "<f8", "units": self._settings.unit.value}
        keys: dict[str, Any] = {name: motor | {"source": name} for name in self._axes}
        if self._files is not None:
            dtype = perspective.read(0, 1).dtype
            shape = [1, *geometry.frame_shape_px]
            external = {"dtype": "array", "dtype_numpy": dtype.str, "external": "STREAM:", "source": "simulated"}
            keys[self._settings.frames] = external | {"shape": shape}
        description = {"uid": self._descriptor, "run_start": self._run, "name": "primary", "data_keys": keys}
        self._send("descriptor", description)
        if self._files is not None:
            self._files.begin(perspective, series=series)
            assert self._files.path is not None  # noqa: S101
            resource = {
                "uid": self._resource,
                "run_start": self._run,
                "data_key": self._settings.frames,
                "mimetype": "application/x-hdf5",
                "uri": self._files.path.absolute().as_uri().replace("file://", "file://localhost"),
                "parameters": {"dataset": self._settings.dataset, "chunk_shape": shape},
            }
            self._send("stream_resource", resource)

    def send(self, index: int, frame: npt.NDArray[np.generic], position_m: tuple[float, float]) -> None:
        """Write a frame and send its event."""
        self._events += 1
        if self._files is not None:
            self._files.send(index, frame, position_m)
            datum = {
                "uid": f"{self._resource}/{index}",
                "stream_resource": self._resource,
                "descriptor": self._descriptor,
                "indices": {"start": index, "stop": index + 1},
                "seq_nums": {"start": index + 1, "stop": index + 2},
            }
            self._send("stream_datum", datum)
        values = [value / self._settings.unit.metres for value in position_m]
        event = {
            "uid": str(uuid.uuid4()),
            "descriptor": self._descriptor,
            "seq_num": index + 1,
            "data": dict(zip(self._axes, values, strict=True)),
            "timestamps": dict.fromkeys(self._axes, time.time()),
            "filled": {},
        }
        self._send("event", event)

    def end(self, *, aborted: bool) -> None:
        """End the run and close its file."""
        if self._files is not None:
            self._files.end(aborted=aborted)
        stop = {
            "uid": str(uuid.uuid4()),
            "run_start": self._run,
            "exit_status": "abort" if aborted else "success",
            "reason": "",
            "num_events": {"primary": self._events},
        }
        self._send("stop", stop)

    def close(self) -> None:
        """Send what is left and close the socket and the file; may be called from any thread."""
        self._closed.set()
        if self._files is not None:
            self._files.close()
        with self._lock:
            self._context.destroy(linger=LINGER_MS)

    @property
    def _axes(self) -> tuple[str, str]:
        return self._settings.field_y, self._settings.field_x

    def _await_subscriber(self) -> None:
        while not self._subscribed:
            with self._lock:
                if self._closed.is_set():
                    raise InterruptedError("asked to stop while nobody listened")
                if self._socket.poll(int(POLL_S * 1000), zmq.POLLIN):
                    self._subscribed = self._socket.recv()[:1] == b"\1"

    def _send(self, name: str, document: Mapping[str, Any]) -> None:
        content = SERIALIZE[self._settings.serializer]({**document, "time": time.time()})
        message = b" ".join([self._settings.prefix.encode(), name.encode(), content])
        while True:
            with self._lock:
                if self._closed.is_set():
                    raise InterruptedError("the simulated publisher was closed")
                try:
                    self._socket.send(message, flags=zmq.DONTWAIT)
                except zmq.Again:
                    self._socket.poll(int(POLL_S * 1000), zmq.POLLOUT)
                else:
                    return
