"""ZeroMQ sockets with the project's policy: for this user alone or with keys off loopback, bounded, never lingering."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self, overload

import zmq
from zmq.auth.thread import ThreadAuthenticator
from zmq.utils.monitor import parse_monitor_message

from ptychoflow.streaming.access import POSITIONS, Access, Role
from ptychoflow.streaming.codec import MAX_ARRAYS, MAX_HEADER_BYTES
from ptychoflow.streaming.errors import UserError, writing
from ptychoflow.streaming.keys import apply_client_keys, apply_server_keys, public_keys
from ptychoflow.streaming.private_folder import require_private
from ptychoflow.streaming.seldom import Seldom
from ptychoflow.streaming.settings import NetworkSettings, is_loopback

log = logging.getLogger(__name__)
log.addFilter(Seldom())

HEARTBEAT_INTERVAL_MS = 2_000
HEARTBEAT_TIMEOUT_MS = 20_000
"""A peer silent for this long is disconnected; long enough for a process that waits for a busy core."""
RECEIVERS = frozenset((zmq.PULL, zmq.SUB, zmq.ROUTER))
"""Sockets whose reader may be busy elsewhere for long while messages wait."""
PROBED_AFTER_S, PROBED_EVERY_S, PROBES = 10, 5, 2
"""When the kernel asks whether a silent peer is still there, and how often in vain before it is disconnected."""

MOST_IO_THREADS = 4
PLAIN = b"plain"
"""Domain of sockets without keys, for which nobody is asked."""
READABLE, WRITABLE = int(zmq.POLLIN), int(zmq.POLLOUT)

HEADER_ONLY_BYTES = 2 * MAX_HEADER_BYTES
"""Most that a part may have on a socket for short messages; one a little too large is counted, not hung up on."""
PARTS_KEPT = MAX_ARRAYS + 3
"""One more than a sender's name, a header and its arrays, so that a message that has more is known as malformed."""

Socket = zmq.Socket[bytes]


class Sockets:
    """Opens the sockets of one part. Close it to close them all; a context manager.

    Args:
        network: hosts, ports and keys of the run.
        fans_out: frames go to several consumers at the beam's rate.
    """

    def __init__(self, network: NetworkSettings, *, fans_out: bool = False) -> None:
        self.network = network
        self._context = zmq.Context(_encrypting_threads() if fans_out and network.encrypts else 1)
        self._open: list[Socket] = []
        self._authenticator: ThreadAuthenticator | None = None
        self._claims: dict[Socket, int] = {}
        """Locks of those that listen on a file."""
        self._monitors: dict[Socket, Socket] = {}

    def bind(self, kind: int, host: str, port: int, access: Access = POSITIONS) -> Socket:
        """Return a socket bound to `host:port`, or to the file of that name in `network.sockets_dir`.

        Args:
            kind: of ZeroMQ, such as `zmq.PULL`.
            host: name or address of this machine.
            port: 0 takes a free one.
            access: who may connect, where there are keys.

        Raises:
            UserError: the port or the file is in use, the host is not this machine's, keys are missing off loopback, or
                the folder is not this user's alone.
        """
        folder = self.network.sockets_dir
        with self._opening(kind, host) as socket:
            if folder is not None:
                self._claims[socket] = _claim(folder / f"{port}.lock")
            if folder is None and self.network.keys_dir is not None:
                apply_server_keys(socket, self.network.keys_dir, access)
                self._admit(access, public_keys(self.network.keys_dir, access.clients))
            else:
                # without a domain, whatever connects is served as a peer of ZMTP 1, whose messages go astray
                socket.zap_domain = PLAIN
            try:
                socket.bind(self.network.endpoint(host, port))
            except zmq.ZMQError as error:
                where = f"{host}:{port}" if folder is None else folder / str(port)
                raise UserError(f"cannot listen on {where}: {error.strerror}; choose another port or host") from error
        return socket

    def connect(
        self,
        kind: int,
        host: str,
        port: int,
        access: Access = POSITIONS,
        *,
        roles: Iterable[Role] | None = None,
        only_to_peers: bool = False,
        watched: zmq.Event | None = None,
    ) -> Socket:
        """Return a socket connected to what `bind` binds; ZeroMQ connects again by itself after a break.

        Args:
            kind: of ZeroMQ, such as `zmq.PUSH`.
            host: name or address of the peer.
            port: of the peer.
            access: whose socket it is, where there are keys.
            roles: those to speak as, of which the first is proved whose secret is there; all that may connect by
                default.
            only_to_peers: nothing is queued while the peer is away: sending waits for it.
            watched: events that the socket's monitor reports from the first connection on.

        Raises:
            UserError: keys are missing off loopback, or the folder is not this user's alone.
        """
        with self._opening(kind, host) as socket:
            if self.network.keys_dir is not None and self.network.sockets_dir is None:
                apply_client_keys(socket, self.network.keys_dir, access, access.clients if roles is None else roles)
            socket.immediate = only_to_peers
            if watched is not None:
                self.monitor(socket, watched)
            socket.connect(self.network.endpoint(host, port))
        return socket

    def monitor(self, socket: Socket, event: zmq.Event = zmq.Event.HANDSHAKE_SUCCEEDED) -> Socket:
        """Return a monitor socket that reports each `event` of `socket`, a completed handshake by default.

        It ends with the socket. `read_events` has to be called now and then: once some 2,000 events are unread, ZeroMQ
        waits, and with it whatever the sockets of this part send and receive.
        """
        monitor = socket.get_monitor_socket(event)
        self._monitors[socket] = monitor
        return monitor

    def release(self, socket: Socket) -> None:
        """Close one socket at once, and its monitor."""
        self._stop_monitor(socket)
        self._open.remove(socket)
        socket.close(linger=0)
        if socket in self._claims:
            os.close(self._claims.pop(socket))

    def close(self, linger_s: float = 0.0) -> None:
        """Close all sockets; what is queued for sending gets `linger_s` seconds to leave."""
        for socket in self._open:
            self._stop_monitor(socket)
            socket.close(linger=int(linger_s * 1000))
        self._open.clear()
        if self._authenticator is not None:
            self._authenticator.stop()
            self._authenticator = None
        self._context.term()
        while self._claims:
            os.close(self._claims.popitem()[1])

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close all sockets at once."""
        self.close()

    @contextmanager
    def _opening(self, kind: int, host: str) -> Iterator[Socket]:
        """Make a socket; close it should the context fail, as nobody else would: ZeroMQ waits for it at the end."""
        socket = self._socket(kind, host)
        try:
            yield socket
        except BaseException:
            self.release(socket)
            raise

    def _socket(self, kind: int, host: str) -> Socket:
        if self.network.sockets_dir is not None:
            require_private(self.network.sockets_dir)
        elif self.network.keys_dir is None and not is_loopback(host):
            raise UserError(f"{host} is not loopback and needs keys: run `ptychoflow keys DIR`, set network.keys_dir")
        try:
            socket = self._context.socket(kind)
        except zmq.ZMQError as error:
            raise UserError(
                f"cannot open another socket: {error.strerror}; raise the limit of open files (ulimit -n)"
            ) from error
        self._open.append(socket)
        socket.set_hwm(self.network.high_water_mark)
        if kind in RECEIVERS:
            # a heartbeat to a peer that went while messages of it wait to be read ends the process (libzmq 4.3.5)
            socket.tcp_keepalive, socket.tcp_keepalive_cnt = 1, PROBES
            socket.tcp_keepalive_idle, socket.tcp_keepalive_intvl = PROBED_AFTER_S, PROBED_EVERY_S
        else:
            socket.heartbeat_ivl = HEARTBEAT_INTERVAL_MS
            socket.heartbeat_timeout = HEARTBEAT_TIMEOUT_MS
        socket.reconnect_ivl = 50
        socket.reconnect_ivl_max = 1000
        socket.maxmsgsize = self.network.max_message_bytes
        socket.ipv6 = ":" in host
        return socket

    def _stop_monitor(self, socket: Socket) -> None:
        monitor = self._monitors.pop(socket, None)
        if monitor is None:
            return
        # ZeroMQ lets go of a socket only when there is room for one more event
        for _event in read_events(monitor):
            pass
        socket.disable_monitor()
        monitor.close(linger=0)

    def _admit(self, access: Access, public_keys: frozenset[bytes]) -> None:
        """Let the holders of these keys connect to sockets of this kind, and nobody else."""
        if self._authenticator is None:
            self._authenticator = ThreadAuthenticator(self._context, log=log)
            self._authenticator.start()
        self._authenticator.configure_curve_callback(access.name, _Admitted(public_keys))


def require_unclaimed(folder: Path, port: int) -> None:
    """Make a folder of sockets, if there is none, and see that nobody listens on one of its files.

    Raises:
        UserError: the folder cannot be made, is not this user's alone, or somebody listens there.
    """
    require_private(folder)
    os.close(_claim(folder / f"{port}.lock"))


def _claim(lock: Path) -> int:
    """Return the descriptor of a lock, held until it is closed: ZeroMQ would take over a file that others listen on."""
    with writing(f"{lock}"):
        claim = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(claim)
        where = lock.with_suffix("")
        raise UserError(f"cannot listen on {where}: Address already in use; stop what holds it") from None
    return claim


class _Admitted:
    """Who may connect, as pyzmq's authenticator asks for it."""

    def __init__(self, public_keys: frozenset[bytes]) -> None:
        self._public_keys = public_keys

    def callback(self, domain: str, key: bytes) -> bool:
        """Return whether the holder of the key may connect."""
        if key not in self._public_keys:
            log.warning("refused: somebody without the key of a role that may connect to %s", domain)
        return key in self._public_keys


def _encrypting_threads() -> int:
    """Return how many threads share the links to consumers; each link stays with one.

    One copies faster than a network takes it, but encrypts less than 2 GB/s.
    """
    return min(MOST_IO_THREADS, len(os.sched_getaffinity(0)))


@overload
def receive_now(socket: Socket, *, copy: Literal[True] = True) -> list[bytes] | None: ...
@overload
def receive_now(socket: Socket, *, copy: Literal[False]) -> list[zmq.Frame] | None: ...
def receive_now(socket: Socket, *, copy: bool = True) -> list[bytes] | list[zmq.Frame] | None:
    """Return the message that is there, or None; never blocks. Of its parts, no more are kept than `PARTS_KEPT`.

    With keys, the heartbeat of a peer makes a socket look readable although there is nothing to read. Who then waits
    for a message may wait for ever, and does not notice that it was told to stop.

    Args:
        socket: to read from.
        copy: bytes rather than frames.
    """
    try:
        parts: list[Any] = [socket.recv(zmq.DONTWAIT, copy=copy)]
    except zmq.Again:
        return None
    while socket.get(zmq.RCVMORE):
        part = socket.recv(zmq.DONTWAIT, copy=copy)
        if len(parts) < PARTS_KEPT:
            parts.append(part)
    return parts


def read_events(monitor: Socket) -> Iterator[zmq.Event]:
    """Yield what a monitor reports, oldest first, until there is no more; never blocks."""
    while may_have_more(monitor) and (parts := receive_now(monitor)) is not None:
        yield zmq.Event(parse_monitor_message(parts)["event"])


def takes_more(socket: Socket) -> bool:
    """Return whether a message can be queued for sending: there is a peer, and room at its high-water mark."""
    return bool(int(socket.get(zmq.EVENTS)) & WRITABLE)


def may_have_more(socket: Socket) -> bool:
    """Return False where there is certainly no message to read: for less than half of what it costs to try."""
    return bool(int(socket.get(zmq.EVENTS)) & READABLE)
