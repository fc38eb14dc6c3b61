"""What the background thread needs of other ranks, whatever carries the bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import NamedTuple

from ptychoflow.buffer.index import Ints
from ptychoflow.buffer.item_update import ItemUpdate
from ptychoflow.buffer.outputs import OutputSet, Window


@dataclass
class TransportCounters:
    """Traffic with other ranks since the start."""

    bytes_sent: int = 0
    bytes_received: int = 0
    items_served: int = 0
    items_placed: int = 0
    """Those of them that were written into the other rank's memory."""


class Delivery(NamedTuple):
    """What a rank has delivered of a draw."""

    items: int
    remaining: float
    """Weight of its items that were not delivered for this draw, where draws are by score."""


@dataclass(frozen=True)
class Collected:
    """The answers to the requests since the last `collect`."""

    complete: bool
    """Whether every rank answered, and delivered all it was asked for, or in a draw by score all that it could."""
    deliveries: dict[int, Delivery] = field(default_factory=dict)
    """By rank."""
    updated: int = 0
    """Items that other ranks rewrote."""


class Transport(ABC):
    """Requests to other ranks and service of theirs. All methods but `wake` belong to the background thread.

    Nothing here polls: `serve` sleeps in the kernel until a peer, a deadline or `wake` needs the thread.
    """

    name: str

    def __init__(self) -> None:
        self.counters = TransportCounters()
        self.sizes: dict[int, int] = {}
        """Live items of every other rank still in the group, as last heard."""
        self.weights: dict[int, float] = {}
        """The weight of those items, where draws are by score."""
        self.lost: dict[int, str] = {}
        """Ranks given up, and why."""
        self.left: list[int] = []
        """Ranks that closed their buffer."""
        self.interrupted = False

    def interrupt(self) -> None:
        """Make `serve` and `collect` return because the buffer is being closed. May be called from any thread."""
        self.interrupted = True
        self.wake()

    @abstractmethod
    def wake(self) -> None:
        """Make the current or next `serve` return. May be called from any thread."""

    @abstractmethod
    def serve(self, timeout_s: float | None) -> None:
        """Sleep until something happened or `timeout_s` passed (None: for ever), and serve what came."""

    def open_window(self, nbytes: int) -> Window | None:
        """Zeroed memory to which other ranks can write what they are asked for; None if there is no such memory."""
        del nbytes
        return None

    @abstractmethod
    def announce(self) -> None:
        """Tell every other rank what it must know of this rank's store."""

    @abstractmethod
    def announce_restored(self) -> None:
        """Tell every other rank what was restored here, and serve until all have told the same, or are gone.

        Goes on without those that let the timeout pass, and logs a warning.
        """

    @abstractmethod
    def request_items(
        self, rank: int, *, count: int, into: OutputSet, first: int, excluded: Ints | None = None
    ) -> None:
        """Ask a rank for `count` items of its choice, to be written to rows `first` and on.

        In a draw by score these are arrivals, which give fewer items where one arrives again; none of `excluded`, ids
        of items that the draw has got from that rank.
        """

    @abstractmethod
    def request_update(self, rank: int, update: ItemUpdate) -> None:
        """Ask a rank to rewrite items; `update` must stay as it is until `collect` has returned."""

    @abstractmethod
    def collect(self) -> Collected:
        """Serve others until all requests are answered; ranks that let `timeout_s` pass are given up."""

    @abstractmethod
    def close(self) -> None:
        """Tell the others, let replies that are under way finish, and release sockets and memory."""
