"""What carries the rows of items, beside the TCP connection that carries everything else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from ptychoflow.buffer.transport.connection import Connection


@dataclass(frozen=True)
class MemoryRegion:
    """Memory of this rank to which others can write."""

    memory: torch.Tensor
    """uint8 (nbytes,), zeros"""
    key: bytes
    """What `ItemChannel.attach_region` needs on another rank."""


class ItemChannel(ABC):
    """Sends and receives the fields' rows of one reply. Used by the background thread alone."""

    name: str
    address: bytes = b""
    """What other ranks need to reach this one, beside its TCP address."""

    @abstractmethod
    def connect(self, addresses: dict[int, bytes]) -> None:
        """Learn how to reach the other ranks."""

    @abstractmethod
    def send(
        self,
        connection: Connection,
        *,
        rank: int,
        request_id: int,
        parts: Iterable[memoryview],
        sent: Callable[[], None],
    ) -> None:
        """Send the rows that answer `request_id`, each part as it comes; no part changes until `sent` is called."""

    @abstractmethod
    def receive(
        self, *, rank: int, request_id: int, parts: Sequence[memoryview], received: Callable[[], None]
    ) -> Iterable[memoryview]:
        """The memory to be filled from the TCP stream; what goes another way is received besides.

        `received` is called once all of `parts` is there.
        """

    def allocate_region(self, nbytes: int) -> MemoryRegion | None:
        """Memory for other ranks to write to; None on a channel that has none."""
        del nbytes
        return None

    def attach_region(self, rank: int, key: bytes, nbytes: int) -> torch.Tensor | None:
        """What `rank` lends, uint8 (nbytes,), until `drop`; None if out of reach, on another host for instance."""
        del rank, key, nbytes
        return None

    @abstractmethod
    def drop(self, rank: int) -> None:
        """Forget a rank that is gone: what is pending with it never completes."""

    @property
    @abstractmethod
    def idle(self) -> bool:
        """Whether all that was sent has arrived."""

    @abstractmethod
    def progress(self) -> bool:
        """Do what can be done now; returns whether the thread may sleep until a file descriptor wakes it."""

    @abstractmethod
    def pop_failures(self) -> list[tuple[int, str]]:
        """Ranks with which a transfer failed since the last call, and how."""

    @abstractmethod
    def filenos(self) -> Iterable[int]:
        """File descriptors that become readable when `progress` has something to do."""

    @abstractmethod
    def close(self) -> None:
        """Release everything."""
