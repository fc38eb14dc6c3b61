"""Telemetry: every part sends events to one hub, which writes them to the run's folder and fans them out to viewers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from io import SEEK_END, FileIO
from pathlib import Path
from typing import Any

import msgspec
import numpy.typing as npt
import zmq

from ptychoflow.streaming.codec import Arrays, Codec, MalformedMessage
from ptychoflow.streaming.events import AnyEvent, Telemetry
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.streaming.sockets import Sockets

log = logging.getLogger(__name__)

POLL_MS = 100
SENDER_QUEUE = 10_000
"""Events that wait in a sender while the hub is away; beyond that the newest are dropped and counted."""

OnEvent = Callable[[Telemetry, Arrays], None]


class TelemetrySender:
    """Sends events of one part. Thread-safe; never blocks.

    Args:
        network: hosts, ports and keys of the run; connects to `hub_host:telemetry_port`.
        sender: who speaks, for people.
    """

    def __init__(self, network: NetworkSettings, *, sender: str) -> None:
        self.dropped = 0
        self._sender = sender
        self._codec: Codec[Telemetry] = Codec(Telemetry)
        self._lock = threading.Lock()
        self._sockets = Sockets(network.model_copy(update={"high_water_mark": SENDER_QUEUE}))
        self._socket = self._sockets.connect(zmq.PUSH, network.hub_host, network.telemetry_port)

    def send(self, event: AnyEvent, arrays: Mapping[str, npt.NDArray[Any]] | None = None) -> None:
        """Send an event; when the queue is full it is dropped and counted (counters are cumulative)."""
        parts = self._codec.encode(Telemetry(time.time(), self._sender, event), arrays)
        with self._lock:
            try:
                self._socket.send_multipart(parts, flags=zmq.DONTWAIT, copy=False)
            except zmq.Again:
                self.dropped += 1

    def close(self) -> None:
        """Close the socket; what is queued gets two seconds to leave."""
        with self._lock:
            self._sockets.close(linger_s=2.0)


class TelemetryHub:
    """Collects events in a thread of its own, appends them to a file, and fans them out.

    Args:
        network: hosts, ports and keys of the run; binds `hub_host` at `telemetry_port` and `fanout_port`.
        jsonl: file that gets one line per event, without arrays.
        on_event: called in the hub's thread for every event.

    Raises:
        UserError: a port is in use.
        OSError: the file cannot be opened.
    """

    def __init__(self, network: NetworkSettings, *, jsonl: Path, on_event: OnEvent | None = None) -> None:
        self.malformed = 0
        self._jsonl = jsonl
        self._file = _open_to_append(jsonl)
        self._unwritten = 0
        self._on_event = on_event
        self._codec: Codec[Telemetry] = Codec(Telemetry, network.max_message_bytes)
        self._sockets = Sockets(network.model_copy(update={"high_water_mark": SENDER_QUEUE}))
        self._pull = self._sockets.bind(zmq.PULL, network.hub_host, network.telemetry_port)
        self._fanout = self._sockets.bind(zmq.PUB, network.hub_host, network.fanout_port)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry-hub", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take in what has arrived, then stop."""
        self._stop.set()
        self._thread.join()
        self._sockets.close(linger_s=0.5)
        self._file.close()

    def _run(self) -> None:
        while not self._stop.is_set() or self._pull.poll(POLL_MS):
            if self._pull.poll(POLL_MS):
                self._take(self._pull.recv_multipart(copy=False))

    def _take(self, parts: list[zmq.Frame]) -> None:
        try:
            decoded = self._codec.decode(parts)
        except MalformedMessage as error:
            self.malformed += 1
            log.warning("dropped malformed telemetry: %s", error)
            return
        self._fanout.send_multipart(parts, copy=False)
        self._append(decoded.body)
        if self._on_event is not None:
            self._on_event(decoded.body, decoded.arrays)

    def _append(self, telemetry: Telemetry) -> None:
        """Write one line; a full disk must not keep the run's summary and its viewers from the event."""
        try:
            self._file.write(msgspec.json.encode(telemetry) + b"\n")
        except OSError as error:
            self._unwritten += 1
            if self._unwritten == 1:
                log.warning("cannot write %s (%s): it will lack events", self._jsonl, error.strerror)


def _open_to_append(path: Path) -> FileIO:
    """Open a file of lines; the last one may have been cut short when the process that wrote it was killed."""
    file = path.open("a+b", buffering=0)
    if file.seek(0, SEEK_END) > 0:
        file.seek(-1, SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")
    return file


class TelemetrySubscriber:
    """Receives what the hub fans out, from now on. Use it from one thread only.

    Args:
        network: hosts, ports and keys of the run; connects to `hub_host:fanout_port`.
    """

    def __init__(self, network: NetworkSettings) -> None:
        self._codec: Codec[Telemetry] = Codec(Telemetry, network.max_message_bytes)
        self._sockets = Sockets(network.model_copy(update={"high_water_mark": SENDER_QUEUE}))
        self._socket = self._sockets.connect(zmq.SUB, network.hub_host, network.fanout_port)
        self._socket.subscribe(b"")

    def receive(self, timeout_s: float) -> tuple[Telemetry, Arrays] | None:
        """Return the next event, or None after `timeout_s` seconds without one."""
        if not self._socket.poll(int(timeout_s * 1000)):
            return None
        try:
            decoded = self._codec.decode(self._socket.recv_multipart(copy=False))
        except MalformedMessage as error:
            log.warning("dropped malformed telemetry: %s", error)
            return None
        return decoded.body, decoded.arrays

    def close(self) -> None:
        """Close the socket."""
        self._sockets.close()
