"""No other ranks: what the draws of one process, or of a rank that keeps to its own items, need."""

from __future__ import annotations

import threading

from ptychoflow.buffer.index import Ints
from ptychoflow.buffer.item_update import ItemUpdate
from ptychoflow.buffer.outputs import OutputSet
from ptychoflow.buffer.transport.transport import Collected, Transport


class LocalTransport(Transport):
    """Knows no peers, so nothing is ever requested."""

    name = "local"

    def __init__(self) -> None:
        super().__init__()
        self._woken = threading.Event()

    def wake(self) -> None:
        """See `Transport.wake`."""
        self._woken.set()

    def serve(self, timeout_s: float | None) -> None:
        """See `Transport.serve`."""
        self._woken.wait(timeout_s)
        self._woken.clear()

    def announce(self) -> None:
        """There is nobody to tell."""

    def announce_restored(self) -> None:
        """There is nobody to tell, or to wait for."""

    def request_items(
        self, rank: int, *, count: int, into: OutputSet, first: int, excluded: Ints | None = None
    ) -> None:
        """There is no other rank."""
        raise AssertionError(f"rank {rank} cannot be asked over the local transport")

    def request_update(self, rank: int, update: ItemUpdate) -> None:
        """There is no other rank."""
        raise AssertionError(f"rank {rank} cannot be asked over the local transport")

    def collect(self) -> Collected:
        """Nothing was asked for."""
        return Collected(complete=True)

    def close(self) -> None:
        """There is nothing to release."""
