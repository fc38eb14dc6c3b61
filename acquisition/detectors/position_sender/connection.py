"""Listens for the messages of a user's program."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import zmq

from ptychoflow.acquisition.detectors.interface import POLL_S, Connection, Deliver, Part
from ptychoflow.acquisition.detectors.position_sender.messages import begins
from ptychoflow.acquisition.detectors.position_sender.settings import PositionSenderSettings
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.streaming.sockets import Sockets, receive_now


class PositionSenderConnection(Connection):
    """Drains a PULL socket that programs connect to."""

    def __init__(self, settings: PositionSenderSettings) -> None:
        self._settings = settings

    def drain(self, deliver: Deliver, stop: threading.Event) -> None:
        """Deliver messages as they come, until `stop` is set.

        Raises:
            UserError: the address cannot be listened on, or keys are missing.
        """
        network = NetworkSettings(keys_dir=self._settings.keys_dir, max_message_bytes=self._settings.max_message_bytes)
        with Sockets(network) as sockets:
            socket = sockets.bind(zmq.PULL, self._settings.host, self._settings.port)
            while not stop.is_set():
                if socket.poll(int(POLL_S * 1000)) and (parts := receive_now(socket)) is not None:
                    deliver(parts)

    @staticmethod
    def begins_series(parts: Sequence[Part]) -> bool:
        """Whether the positions of a series begin."""
        return begins(parts)
