"""Serves the positions of a scan as a PandA's data port does."""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import threading
from datetime import UTC, datetime
from xml.sax.saxutils import quoteattr

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.detectors.interface import POLL_S, Simulator
from ptychoflow.acquisition.detectors.panda.framing import BLOCK, BLOCK_PREFIX_BYTES, GREETING, MAX_LINE_BYTES
from ptychoflow.acquisition.detectors.panda.settings import PandaSimulatorSettings
from ptychoflow.acquisition.scan import Perspective
from ptychoflow.streaming.errors import UserError

log = logging.getLogger(__name__)

TRIGGER_FIELD = "COUNTER1.OUT"
SLOW_CLIENT_S = 5.0
"""A client that takes nothing for so long is disconnected, as the box does."""
_SAMPLE = struct.Struct("<ddd")


class PandaSimulator(Simulator):
    """A data port with the fields trigger number, y and x. Who connects in a capture is told what was missed."""

    def __init__(self, settings: PandaSimulatorSettings) -> None:
        self._settings = settings
        try:
            self._listener = socket.create_server((settings.host, settings.port))
        except OSError as error:
            raise UserError(
                f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; choose another port or host"
            ) from error
        self.port: int = self._listener.getsockname()[1]
        self._changed = threading.Condition()
        self._clients: list[_Client] = []
        self._captured: int | None = None
        self._arm_time = ""
        self._heard = self._closed = False
        threading.Thread(target=self._accept, name="panda-simulator", daemon=True).start()

    def begin(self, perspective: Perspective, *, series: int) -> None:
        """Begin a capture when somebody is connected, unless what is unheard is lost.

        Raises:
            InterruptedError: closed while nobody was.
        """
        with self._changed:
            while not self._clients and not (self._heard and self._settings.loses_unheard):
                if self._closed:
                    raise InterruptedError(f"nobody connected to {self._settings.host}:{self.port}")
                self._changed.wait(POLL_S)
            self._captured, self._heard = 0, True
            self._arm_time = datetime.now(UTC).isoformat()
            self._say(self._header(missed=0))
            if self._settings.stale_first_sample:
                self._sample(self._settings.first_trigger - 1, (0.0, 0.0))

    def send(self, index: int, frame: npt.NDArray[np.generic], position_m: tuple[float, float]) -> None:
        """Send the samples captured at a frame, as one block each."""
        with self._changed:
            for _ in range(self._settings.samples_per_frame):
                self._sample(self._settings.first_trigger + index, position_m)

    def end(self, *, aborted: bool) -> None:
        """End the capture."""
        with self._changed:
            for client in self._clients:
                client.end("Framing error" if aborted else "Ok")
            self._drop_gone()
            self._captured = None

    def close(self) -> None:
        """Close all connections."""
        with self._changed:
            self._closed = True
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            for client in self._clients:
                client.close()
            self._clients.clear()
            self._changed.notify_all()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._greet, args=(connection,), daemon=True).start()

    def _greet(self, connection: socket.socket) -> None:
        connection.settimeout(SLOW_CLIENT_S)
        try:
            greeting = b""
            while not greeting.endswith(b"\n") and len(greeting) < MAX_LINE_BYTES:
                if not (received := connection.recv(MAX_LINE_BYTES)):
                    break
                greeting += received
            accepted = greeting == GREETING
            connection.sendall(b"OK\n" if accepted else b"ERR Only XML FRAMED SCALED is served\n")
        except OSError:
            accepted = False
        client = _Client(connection)
        with self._changed:
            if not accepted or self._closed:
                client.close()
                return
            if self._captured is not None:
                client.say(self._header(missed=self._captured))
            self._clients.append(client)
            self._changed.notify_all()

    def _header(self, *, missed: int) -> bytes:
        unit = quoteattr(self._settings.unit)
        places = f'scale="1" offset="0" units={unit}'
        return (
            f'<header>\n<data arm_time="{self._arm_time}" missed="{missed}" process="Scaled" format="Framed" '
            f'sample_bytes="{_SAMPLE.size}" />\n'
            f'<fields>\n<field name="{TRIGGER_FIELD}" type="double" capture="Value" scale="1" offset="0" units="" />\n'
            f'<field name={quoteattr(self._settings.field_y)} type="double" capture="Mean" {places} />\n'
            f'<field name={quoteattr(self._settings.field_x)} type="double" capture="Mean" {places} />\n'
            "</fields>\n</header>\n\n"
        ).encode()

    def _sample(self, trigger: int, position_m: tuple[float, float]) -> None:
        if self._captured is None:
            return
        unit_m = self._settings.unit.metres
        sample = _SAMPLE.pack(trigger, position_m[0] / unit_m, position_m[1] / unit_m)
        self._captured += 1
        for client in self._clients:
            client.sent += 1
        self._say(BLOCK + (BLOCK_PREFIX_BYTES + len(sample)).to_bytes(4, "little") + sample)

    def _say(self, data: bytes) -> None:
        for client in self._clients:
            client.say(data)
        self._drop_gone()

    def _drop_gone(self) -> None:
        self._clients = [client for client in self._clients if not client.gone]


class _Client:
    """Somebody who is connected."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.sent = 0
        self.gone = False

    def say(self, data: bytes) -> None:
        try:
            self._connection.sendall(data)
        except OSError as error:
            log.info("a client of the simulated PandA is gone: %s", error)
            self.close()

    def end(self, reason: str) -> None:
        self.say(f"END {self.sent} {reason}\n".encode())
        self.sent = 0

    def close(self) -> None:
        self.gone = True
        self._connection.close()
