"""Rows of items over the same TCP connection as everything else: no dependency, every network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ptychoflow.buffer.transport.connection import Connection
from ptychoflow.buffer.transport.lane import Lane


class TcpLane(Lane):
    """Rows follow the header of their reply in the stream."""

    name = "tcp"

    def connect(self, addresses: dict[int, bytes]) -> None:
        """See `Lane.connect`: the connections exist already."""

    def send(
        self, connection: Connection, *, rank: int, ticket: int, parts: Iterable[memoryview], sent: Callable[[], None]
    ) -> None:
        """See `Lane.send`."""
        for part in parts:
            connection.send(part)
        connection.send(b"", sent=sent)

    def receive(
        self, *, rank: int, ticket: int, parts: Sequence[memoryview], received: Callable[[], None]
    ) -> Iterable[memoryview]:
        """See `Lane.receive`."""
        yield from parts
        received()

    def drop(self, rank: int) -> None:
        """See `Lane.drop`: closing the connection was enough."""

    @property
    def idle(self) -> bool:
        """See `Lane.idle`: the connections know."""
        return True

    def settle(self) -> bool:
        """See `Lane.settle`."""
        return True

    def failures(self) -> list[tuple[int, str]]:
        """See `Lane.failures`: the connections tell."""
        return []

    def filenos(self) -> Iterable[int]:
        """See `Lane.filenos`."""
        return ()

    def close(self) -> None:
        """See `Lane.close`."""
