"""Drains what a source sends by ZeroMQ."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import ClassVar, Protocol

import zmq
from zmq.utils.monitor import parse_monitor_message

from ptychoflow.acquisition.detectors.interface import POLL_S, Connection, Deliver, Part
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.sockets import Socket, receive_now

log = logging.getLogger(__name__)

GIVEN_UP_AFTER_S = 0.5
"""ZeroMQ announces another attempt at once; where it has not for so long, as after a message that is too large, there
will be none."""
KEEPALIVE_S = 10
"""A connection on which nothing comes is looked after so often: a detector that lost its power closes none."""
TAKEN_AT_ONCE = 256
"""Messages taken before it is looked whether to stop."""
TOGETHER_S = 0.001
"""What comes within this time is taken together: to wake for every message takes longer than to receive it."""
COPIED_BYTES = 1 << 14
"""Messages of this size and smaller ones are copied: that takes less time than to keep them in ZeroMQ's memory."""
WATCHED = zmq.Event.HANDSHAKE_SUCCEEDED | zmq.Event.DISCONNECTED | zmq.Event.CONNECT_RETRIED


class ZmqSettings(Protocol):
    """Where a source listens, and what is taken from it."""

    host: str
    port: int
    high_water_mark: int
    """Messages that ZeroMQ keeps until they are taken."""
    max_message_bytes: int
    """Of a part of a message."""


class ZmqConnection(Connection):
    """Takes every message from a socket that is bound elsewhere, and connects again by itself.

    A part above `max_message_bytes` is not received; the connection is made anew behind it.
    """

    socket_type: ClassVar[int] = zmq.PULL
    source: ClassVar[str] = "detector"
    """What listens there, for messages."""

    def __init__(self, settings: ZmqSettings) -> None:
        self._settings = settings
        self._address = f"{settings.host}:{settings.port}"
        self._copy = False
        """Whether the last message was small; the next one is taken to be like it."""
        self._was_there = self._told_gone = False
        """Whether the source has ever answered, and whether it was told that it has gone since."""

    def drain(self, deliver: Deliver, stop: threading.Event) -> None:
        """Deliver every message as it comes, until `stop` is set.

        Raises:
            UserError: the address is none.
        """
        with zmq.Context() as context:
            while not stop.is_set():
                socket = self._open(context)
                monitor = socket.get_monitor_socket(WATCHED)
                try:
                    self._connect(socket)
                    self._drain(socket, monitor, deliver, stop)
                finally:
                    socket.disable_monitor()
                    monitor.close(linger=0)
                    socket.close(linger=0)

    def _open(self, context: zmq.Context[Socket]) -> Socket:
        socket = context.socket(self.socket_type)
        socket.rcvhwm = self._settings.high_water_mark
        socket.maxmsgsize = self._settings.max_message_bytes
        socket.reconnect_ivl, socket.reconnect_ivl_max = 50, 1000
        socket.tcp_keepalive, socket.tcp_keepalive_idle = 1, KEEPALIVE_S
        socket.tcp_keepalive_intvl, socket.tcp_keepalive_cnt = KEEPALIVE_S, 3
        socket.ipv6 = ":" in self._settings.host
        self._set_options(socket)
        return socket

    def _set_options(self, socket: Socket) -> None:
        """Set what only this source needs, before it is connected to.

        Raises:
            UserError: settings cannot be used.
        """

    def _connect(self, socket: Socket) -> None:
        try:
            socket.connect(f"tcp://{self._address}")
        except zmq.ZMQError as error:
            raise UserError(f"{self._address} is no address of a {self.source}: {error.strerror}") from error

    def _drain(self, socket: Socket, monitor: Socket, deliver: Deliver, stop: threading.Event) -> None:
        """Deliver until `stop` is set, or until ZeroMQ has given the connection up."""
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        poller.register(monitor, zmq.POLLIN)
        broken_at_s: float | None = None
        while not stop.is_set():
            ready = dict(poller.poll(int(POLL_S * 1000)))
            if monitor in ready:
                broken_at_s = self._broken_at_s(monitor)
            if socket in ready:
                taken = self._take(socket, deliver)
                if 2 * taken < min(TAKEN_AT_ONCE, self._settings.high_water_mark):
                    time.sleep(TOGETHER_S)
            elif broken_at_s is not None and time.monotonic() - broken_at_s > GIVEN_UP_AFTER_S:
                log.warning(
                    "the connection to the %s at %s broke as after a message above max_message_bytes = %d; it is made "
                    "anew",
                    self.source,
                    self._address,
                    self._settings.max_message_bytes,
                )
                return

    def _take(self, socket: Socket, deliver: Deliver) -> int:
        """Deliver what is there, up to a bound; return how many messages."""
        for taken in range(TAKEN_AT_ONCE):
            parts: Sequence[Part] | None
            if self._copy:
                parts = receive_now(socket)
            else:
                frames = receive_now(socket, copy=False)
                parts = None if frames is None else [frame.buffer for frame in frames]
            if parts is None:
                return taken
            self._copy = sum(map(len, parts)) <= COPIED_BYTES
            deliver(parts)
        return TAKEN_AT_ONCE

    def _broken_at_s(self, monitor: Socket) -> float | None:
        """Say what became of the connection; return when it broke where no other attempt is known of."""
        if (parts := receive_now(monitor)) is None:
            return None
        event = parse_monitor_message(parts)["event"]
        if event == zmq.Event.HANDSHAKE_SUCCEEDED:
            log.info("connected to the %s at %s", self.source, self._address)
            self._was_there, self._told_gone = True, False
        if event != zmq.Event.DISCONNECTED:
            return None
        self._tell_gone()
        return time.monotonic()

    def _tell_gone(self) -> None:
        """Say once that the connection has ended: what takes every attempt and closes it would fill the log."""
        if self._told_gone:
            return
        self._told_gone = True
        if self._was_there:
            log.warning("the %s at %s is gone; it is connected again as soon as it is back", self.source, self._address)
        else:
            log.warning(
                "something at %s closes the connection, and does not answer as a %s; check host and port",
                self._address,
                self.source,
            )
