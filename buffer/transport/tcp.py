"""Rows of items over the same TCP connection as everything else: no dependency, every network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ptychoflow.buffer.transport.connection import Connection
from ptychoflow.buffer.transport.item_channel import ItemChannel


class TcpItemChannel(ItemChannel):
    """Rows follow the header of their reply in the stream."""

    name = "tcp"

    def connect(self, addresses: dict[int, bytes]) -> None:
        """See `ItemChannel.connect`: the connections exist already."""

    def send(
        self,
        connection: Connection,
        *,
        rank: int,
        request_id: int,
        parts: Iterable[memoryview],
        sent: Callable[[], None],
    ) -> None:
        """See `ItemChannel.send`."""
        for part in parts:
            connection.send(part)
        connection.send(b"", sent=sent)

    def receive(
        self, *, rank: int, request_id: int, parts: Sequence[memoryview], received: Callable[[], None]
    ) -> Iterable[memoryview]:
        """See `ItemChannel.receive`."""
        yield from parts
        received()

    def drop(self, rank: int) -> None:
        """See `ItemChannel.drop`: closing the connection was enough."""

    @property
    def idle(self) -> bool:
        """See `ItemChannel.idle`: the connections know."""
        return True

    def progress(self) -> bool:
        """See `ItemChannel.progress`."""
        return True

    def pop_failures(self) -> list[tuple[int, str]]:
        """See `ItemChannel.pop_failures`: the connections tell."""
        return []

    def filenos(self) -> Iterable[int]:
        """See `ItemChannel.filenos`."""
        return ()

    def close(self) -> None:
        """See `ItemChannel.close`."""
