"""Pushes messages by ZeroMQ as a detector does: bound, and waiting while nobody takes them."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import zmq

from ptychoflow.acquisition.detectors.interface import POLL_S, Part
from ptychoflow.streaming.errors import UserError


class PushSocket:
    """A bound PUSH socket. One thread sends; any may close it.

    Args:
        host: name or address of this machine.
        port: 0 takes a free one.
        high_water_mark: messages that are kept for a receiver that does not take them; then sending waits.
        linger_s: how long closing waits until a connected receiver has taken what is left.

    Raises:
        UserError: the port is in use, or the host is not this machine's.
    """

    def __init__(self, *, host: str, port: int, high_water_mark: int, linger_s: float) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUSH)
        self._socket.sndhwm = high_water_mark
        self._socket.ipv6 = ":" in host
        self._linger_ms = int(linger_s * 1000)
        self._closing = threading.Event()
        self._lock = threading.Lock()
        try:
            self._socket.bind(f"tcp://{host}:{port or '*'}")
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise UserError(f"cannot listen on {host}:{port}: {error.strerror}; choose another port or host") from error
        self.port = int(self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rsplit(":", 1)[1])
        """Port where it listens."""

    def send(self, parts: Sequence[Part]) -> None:
        """Send one message; wait while nobody is connected, or takes it.

        Raises:
            InterruptedError: closed meanwhile.
        """
        while True:
            with self._lock:
                if self._closing.is_set():
                    raise InterruptedError("the simulated detector was closed")
                try:
                    self._socket.send_multipart(parts, flags=zmq.DONTWAIT)
                except zmq.Again:
                    self._socket.poll(int(POLL_S * 1000), zmq.POLLOUT)
                else:
                    return

    def close(self) -> None:
        """Close it, from any thread; may be called twice."""
        self._closing.set()
        with self._lock:
            self._context.destroy(linger=self._linger_ms)
