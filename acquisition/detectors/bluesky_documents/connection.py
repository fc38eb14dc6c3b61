"""Subscribes to what a RunEngine publishes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import zmq
import zmq.auth

from ptychoflow.acquisition.detectors.bluesky_documents.documents import split
from ptychoflow.acquisition.detectors.bluesky_documents.settings import BlueskyDocumentsSettings
from ptychoflow.acquisition.detectors.interface import Part
from ptychoflow.acquisition.detectors.zmq_connection import ZmqConnection
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.sockets import Socket


class BlueskyDocumentsConnection(ZmqConnection):
    """Takes every document that a proxy sends on."""

    socket_type = zmq.SUB
    source = "publisher of documents"

    def __init__(self, settings: BlueskyDocumentsSettings) -> None:
        super().__init__(settings)
        self._prefix = settings.prefix
        self._secret, self._server = settings.curve_secret, settings.curve_server

    def _set_options(self, socket: Socket) -> None:
        if self._secret is not None and self._server is not None:
            socket.curve_publickey, secret = _keys(self._secret)
            if secret is None:
                raise UserError(
                    f"{self._secret}: there is no secret key in it; name the file that ends with key_secret"
                )
            socket.curve_secretkey = secret
            socket.curve_serverkey, _ = _keys(self._server)
        socket.subscribe(b"" if self._prefix is None else self._prefix.encode() + b" ")

    @staticmethod
    def begins_series(parts: Sequence[Part]) -> bool:
        """Whether this is a start document."""
        found = split(parts[0]) if parts else None
        return found is not None and found[1] == b"start"


def _keys(path: Path) -> tuple[bytes, bytes | None]:
    """Return the public and, where there is one, the secret key of a certificate."""
    try:
        return zmq.auth.load_certificate(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no certificate of ZeroMQ: {error}") from error
