"""What a connecting socket's monitor tells: that it is connected again, or that it never will be."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from enum import Enum, auto
from socket import create_connection

import zmq

from ptychoflow.streaming.access import Access, Role
from ptychoflow.streaming.settings import is_loopback
from ptychoflow.streaming.sockets import Socket, Sockets, read_events

GIVEN_UP_AFTER_S = 0.5
"""ZeroMQ announces another attempt at once; where it has not for so long, there will be none."""
PROBE_TIMEOUT_S = 1.0
WATCHED = zmq.Event.HANDSHAKE_SUCCEEDED | zmq.Event.DISCONNECTED | zmq.Event.CONNECT_RETRIED


class Change(Enum):
    """What an event of the monitor means."""

    NONE = auto()
    """The connection stands for the first time, or no longer, or is being made."""
    RESTORED = auto()
    """It stands again after a break."""
    REPLACED = auto()
    """It stands in place of the socket before."""


class Connection:
    """A socket with one connection, and what becomes of that.

    Args:
        sockets: opens it.
        kind: of the socket, as ZeroMQ names it.
        host: of the peer.
        port: of the peer.
        access: whose socket it is.
        roles: those to speak as, of which the first is proved whose secret is there.
        replaces: a socket before this one was connected in its place.
    """

    def __init__(
        self,
        sockets: Sockets,
        kind: int,
        *,
        host: str,
        port: int,
        access: Access,
        roles: Iterable[Role],
        replaces: bool = False,
    ) -> None:
        self.socket = sockets.connect(kind, host, port, access, roles=roles, watched=WATCHED)
        self.monitor: Socket = self.socket.get_monitor_socket()
        self.stands = False
        """Whether there is a connection, as far as `read_changes` has seen."""
        self.has_stood = False
        """Whether there has ever been one."""
        self._broken_at_s: float | None = None
        self._next_handshake = Change.REPLACED if replaces else Change.NONE

    @property
    def broken(self) -> bool:
        """Whether the connection broke off and no other attempt is known of."""
        return self._broken_at_s is not None

    @property
    def given_up(self) -> bool:
        """Whether ZeroMQ will not connect again, as after a message larger than it may take."""
        return self._broken_at_s is not None and time.monotonic() - self._broken_at_s > GIVEN_UP_AFTER_S

    def read_changes(self) -> Iterator[Change]:
        """Yield what has happened since it was last asked, oldest first; to be called again and again."""
        for event in read_events(self.monitor):
            if (change := self._take(event)) is not Change.NONE:
                yield change

    def _take(self, event: zmq.Event) -> Change:
        self._broken_at_s = time.monotonic() if event == zmq.Event.DISCONNECTED else None
        self.stands = event == zmq.Event.HANDSHAKE_SUCCEEDED
        self.has_stood |= self.stands
        if not self.stands:
            return Change.NONE
        change, self._next_handshake = self._next_handshake, Change.RESTORED
        return change


def has_left(host: str, port: int) -> bool:
    """Return whether a host says that nobody listens there any more; one that cannot be reached says nothing.

    For a peer whose connection is broken: nothing but the peer's end breaks one within a host. Blocks for a second.
    """
    if is_loopback(host):
        return True
    try:
        with create_connection((host, port), PROBE_TIMEOUT_S):
            return False
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
