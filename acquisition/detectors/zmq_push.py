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
        loses_unheard: once a message has been taken, others that nobody takes are lost; else sending waits.

    Raises:
        UserError: the port is in use, or the host is not this machine's.
    """

    def __init__(
        self, *, host: str, port: int, high_water_mark: int, linger_s: float, loses_unheard: bool = False
    ) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUSH)
        self._socket.sndhwm = high_water_mark
        self._socket.ipv6 = ":" in host
        self._linger_ms = int(linger_s * 1000)
        self._loses_unheard, self._heard = loses_unheard, False
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
        """Send one message; wait while nobody is connected, or takes it, unless what is unheard is lost.

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
                    if self._heard and self._loses_unheard:
                        return
                    self._socket.poll(int(POLL_S * 1000), zmq.POLLOUT)
                else:
                    self._heard = True
                    return

    def close(self) -> None:
        """Close it, from any thread; may be called twice."""
        self._closing.set()
        with self._lock:
            self._context.destroy(linger=self._linger_ms)
