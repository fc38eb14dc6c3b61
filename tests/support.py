"""Helpers that tests import: free ports, waiting for a condition, bounds of time, a connection that can be cut."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

import psutil

from ptychoflow.streaming.settings import NetworkSettings


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that were free a moment ago, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def free_block(count: int) -> int:
    """Return the first of `count` neighbouring free ports of loopback."""
    # Tests that run side by side look in places of their own: a block is not held until somebody listens on it.
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = 20_000 + 4_000 * (worker % 3) + os.getpid() % 3_900
    for start in range(first, 60_000, count):
        if all(is_free(start + offset) for offset in range(count)):
            return start
    raise RuntimeError("no block of free ports")


def is_free(port: int) -> bool:
    """Return whether nobody listens on a port of loopback."""
    with socket.socket() as one:
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def listens(process: psutil.Process, port: int) -> bool:
    """Return whether a process listens at a port; it is not disturbed."""
    return any(one.laddr.port == port and one.status == psutil.CONN_LISTEN for one in process.net_connections())


def free_network() -> NetworkSettings:
    """Return a network section for one run on loopback, on free ports."""
    frames, acknowledgements, weights, telemetry, fanout, commands, commands_fanout = free_ports(7)
    return NetworkSettings(
        frames_port=frames,
        samples_port=free_block(4),
        acknowledgements_port=acknowledgements,
        weights_port=weights,
        telemetry_port=telemetry,
        fanout_port=fanout,
        commands_port=commands,
        commands_fanout_port=commands_fanout,
    )


def wait_until(condition: Callable[[], bool], *, timeout_s: float = 20.0) -> None:
    """Poll `condition` until it holds; fail after `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{condition} did not hold within {timeout_s} s")
        time.sleep(0.005)


class Stopwatch:
    """Counts the seconds in which this process ran, in a context: those in which the machine stands still are nobody's.

    `passed_s` may be read at any time.
    """

    def __init__(self) -> None:
        self.passed_s = 0.0
        self._ended = threading.Event()
        self._counting = threading.Thread(target=self._count, daemon=True)

    def __enter__(self) -> Stopwatch:
        self._counting.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._counting.join()

    def _count(self) -> None:
        last_s = time.monotonic()
        while not self._ended.wait(0.05):
            before_s, last_s = last_s, time.monotonic()
            self.passed_s += min(last_s - before_s, 0.2)


class Proxy:
    """A TCP relay on loopback whose connections a test can cut.

    Args:
        target_port: where connections are relayed to.
        port: where it listens; 0 takes a free one.
        limit_bytes: cut the first connection after this many bytes towards the client; None never cuts.
    """

    def __init__(self, target_port: int, *, port: int = 0, limit_bytes: int | None = None) -> None:
        self._target_port, self._limit = target_port, limit_bytes
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self.swallows = False
        """What comes is taken and not passed on, as when a cable was pulled."""
        self.swallowed = 0
        """Bytes of it."""
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break all connections; new ones are relayed again."""
        for pair in self._pairs:
            for one in pair:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()
        self._pairs.clear()

    def close(self) -> None:
        """Stop relaying."""
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._target_port))
                except ConnectionRefusedError:
                    client.close()
                    continue
                self.connections += 1
                self._pairs.append((client, server))
                limit = self._limit if self.connections == 1 else None
                threading.Thread(target=self._relay, args=(client, server, None), daemon=True).start()
                threading.Thread(target=self._relay, args=(server, client, limit), daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket, limit: int | None) -> None:
        relayed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if self.swallows:
                    self.swallowed += len(data)
                    continue
                relayed += len(data)
                if limit is not None and relayed > limit:
                    self.cut()
                    return
                sink.sendall(data)


@contextlib.contextmanager
def without_privileges() -> Iterator[None]:
    """Whoever is root is nobody for a while."""
    user = os.geteuid()
    os.seteuid(65534 if user == 0 else user)
    try:
        yield
    finally:
        os.seteuid(user)
