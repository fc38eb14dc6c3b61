"""Drains the data port of a PandA: one message for every header, block of samples and end."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Sequence

from ptychoflow.acquisition.detectors.interface import POLL_S, Connection, Deliver, Part
from ptychoflow.acquisition.detectors.panda.framing import GREETING, HEADER_BEGIN, Framing, Unframed
from ptychoflow.acquisition.detectors.panda.settings import PandaSettings
from ptychoflow.streaming.errors import UserError

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
RECONNECT_S = 0.5
RECEIVED_BYTES = 1 << 18
KEEPALIVE_IDLE_S = 10
KEEPALIVE_INTERVAL_S = 5
KEEPALIVE_PROBES = 3


class PandaConnection(Connection):
    """Drains a PandA. Messages have a second part, for samples are counted and one that is lost must be seen.

    Of a header it is the time at which it came in ns, which names the run of positions; of what follows, the time of
    its header and which message it is behind that, from 1, with a space between.
    """

    def __init__(self, settings: PandaSettings) -> None:
        self._settings = settings
        self._told = ""
        self._header_ns = self._behind_header = 0

    def drain(self, deliver: Deliver, stop: threading.Event) -> None:
        """Deliver headers, blocks and ends until `stop` is set; connect again whenever the box is gone.

        Raises:
            UserError: there is no host of the name.
        """
        while not stop.is_set():
            try:
                with self._connect() as box:
                    self._read(box, deliver, stop)
            except (OSError, Unframed) as error:
                self._tell(f"PandA at {self._where}: {error}; it is tried again every {RECONNECT_S} s")
            stop.wait(RECONNECT_S)

    @staticmethod
    def begins_series(parts: Sequence[Part]) -> bool:
        """Whether this is a header."""
        return bool(parts) and bytes(parts[0][: len(HEADER_BEGIN)]) == HEADER_BEGIN

    @property
    def _where(self) -> str:
        return f"{self._settings.host}:{self._settings.port}"

    def _connect(self) -> socket.socket:
        try:
            box = socket.create_connection((self._settings.host, self._settings.port), CONNECT_TIMEOUT_S)
        except socket.gaierror as error:
            # a name that was one before is not known while its box starts anew
            if error.errno != socket.EAI_NONAME or self._told:
                raise
            raise UserError(f"{self._settings.host}: there is no host of this name; check the PandA's host") from error
        box.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # it is silent for hours between scans
        for option, value in (
            ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S),
            ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_S),
            ("TCP_KEEPCNT", KEEPALIVE_PROBES),
        ):
            if hasattr(socket, option):
                box.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        box.settimeout(POLL_S)
        return box

    def _read(self, box: socket.socket, deliver: Deliver, stop: threading.Event) -> None:
        framing = Framing(self._settings.max_message_bytes)
        box.sendall(GREETING)
        self._tell(f"PandA at {self._where}: connected")
        while not stop.is_set():
            try:
                data = box.recv(RECEIVED_BYTES)
            except TimeoutError:
                continue
            if not data:
                raise ConnectionResetError("the box closed the connection")
            for message in framing.feed(data):
                deliver([message, self._place(message)])

    def _place(self, message: bytes) -> bytes:
        """Return the second part of the next message."""
        if self.begins_series([message]):
            self._header_ns, self._behind_header = time.time_ns(), 0
            return b"%d" % self._header_ns
        self._behind_header += 1
        return b"%d %d" % (self._header_ns, self._behind_header)

    def _tell(self, text: str) -> None:
        """Log what changed, and nothing again and again."""
        if text != self._told:
            log.warning("%s", text)
            self._told = text
