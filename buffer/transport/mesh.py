"""Every rank connected to every other: requests, replies, and who is gone."""

from __future__ import annotations

import logging
import math
import selectors
import socket
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

import numpy as np

from ptychoflow.buffer.index import Ints
from ptychoflow.buffer.item_update import ItemUpdate
from ptychoflow.buffer.local_store import LocalStore
from ptychoflow.buffer.memory import ByteRows
from ptychoflow.buffer.outputs import OutputSet, Window
from ptychoflow.buffer.sampling import Choice
from ptychoflow.buffer.transport.connection import Connection
from ptychoflow.buffer.transport.item_channel import ItemChannel
from ptychoflow.buffer.transport.rendezvous import Peers
from ptychoflow.buffer.transport.staging import Staging
from ptychoflow.buffer.transport.transport import Collected, Delivery, Transport
from ptychoflow.buffer.transport.wire import HEADER_BYTES, SCORES_BIT, WEIGHT_BYTES, Kind, Message

_LINGER_S = 2.0
_LONGEST_NAP_S = 1.0
_LARGEST_KEY_BYTES = 4096
_log = logging.getLogger(__name__)


@dataclass
class _Request:
    """A question that was put to a rank and is not fully answered."""

    rank: int
    count: int
    into: OutputSet | None = None
    first: int = 0


class MeshTransport(Transport):
    """One TCP connection per pair of ranks carries requests, sizes and short replies, and shows when a rank dies.

    The rows of items travel by the channel, or are written to their place where the channel reaches it. A rank is given
    up when its connection breaks, when it breaks the protocol, or when it leaves a request unanswered for `timeout_s`;
    it is not readmitted, and its unfinished replies end in memory that nobody reads.
    """

    def __init__(
        self,
        peers: Peers,
        channel: ItemChannel,
        store: LocalStore,
        *,
        serve_rng: np.random.Generator,
        largest_draw: int,
        timeout_s: float,
    ) -> None:
        super().__init__()
        self.name = channel.name
        self._channel = channel
        self._store = store
        self._serve_rng = serve_rng
        self._largest_draw = largest_draw
        self._timeout_s = timeout_s
        self._staging = Staging(store.schema)
        self._windows_opened = 0
        self._windows: dict[int, dict[int, OutputSet]] = {}
        self._requests: dict[int, _Request] = {}
        self._last_request = 0
        self._short = False
        self._deliveries: dict[int, Delivery] = {}
        self._updated = 0
        self._restored: set[int] = set()
        self._closing = False
        self._selector = selectors.DefaultSelector()
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        for fileno in channel.filenos():
            self._selector.register(fileno, selectors.EVENT_READ)
        self._connections: dict[int, Connection] = {}
        for rank, sock in peers.sockets.items():
            self._connections[rank] = Connection(sock, self._read(rank))
            self._selector.register(self._connections[rank], selectors.EVENT_READ, rank)
            self.sizes[rank] = 0
            if store.weights is not None:
                self.weights[rank] = 0.0

    def wake(self) -> None:
        """See `Transport.wake`; a full pipe means that a wake-up is pending already."""
        try:
            self._waker.send(b"\0")
        except BlockingIOError:
            return

    def serve(self, timeout_s: float | None) -> None:
        """See `Transport.serve`."""
        may_sleep = self._channel.progress()
        for rank, reason in self._channel.pop_failures():
            self._give_up(rank, reason)
        for key, events in self._selector.select(timeout_s if may_sleep else 0):
            if key.fileobj is self._woken:
                self._woken.recv(4096)
            elif key.data is not None and key.data in self._connections:
                self._exchange(key.data, events)

    def _exchange(self, rank: int, events: int) -> None:
        connection = self._connections[rank]
        if events & selectors.EVENT_READ:
            self._guarded(rank, connection.receive)
        if events & selectors.EVENT_WRITE and rank in self._connections:
            self._guarded(rank, connection.flush)

    def _guarded(self, rank: int, action: Callable[[], None]) -> None:
        """Do something with a connection; give its rank up if that fails, else wait for what it needs next."""
        try:
            action()
        except _FarewellError:
            self._let_go(rank)
        except (OSError, ValueError) as error:
            self._give_up(rank, f"connection lost: {error}")
        connection = self._connections.get(rank)
        if connection is not None:
            wanted = selectors.EVENT_READ if connection.idle else selectors.EVENT_READ | selectors.EVENT_WRITE
            if self._selector.get_key(connection).events != wanted:
                self._selector.modify(connection, wanted, rank)

    def _send(self, rank: int, message: Message, *parts: bytes | memoryview) -> None:
        connection = self._connections[rank]
        self._guarded(rank, lambda: connection.send(message.pack(), *parts))

    def open_window(self, nbytes: int) -> Window | None:
        """See `Transport.open_window`; every other rank is told of it."""
        region = self._channel.allocate_region(nbytes)
        if region is None:
            return None
        self._windows_opened += 1
        message = Message(Kind.WINDOW, self._store.index.size, items=len(region.key), window=self._windows_opened)
        for rank in list(self._connections):
            self._send(rank, message, region.key)
        return Window(self._windows_opened, region.memory)

    def announce(self) -> None:
        """See `Transport.announce`."""
        self._tell_share(Kind.SIZE)

    def announce_restored(self) -> None:
        """See `Transport.announce_restored`."""
        self._tell_share(Kind.RESTORED)
        if not self._reached_in_time(lambda: self._connections.keys() <= self._restored):
            _log.warning(
                "rank %d: going on though ranks %s have restored nothing in %g s: restore the buffer on every rank",
                self._store.rank,
                sorted(self._connections.keys() - self._restored),
                self._timeout_s,
            )

    def _tell_share(self, kind: Kind) -> None:
        size, weight = self._store.share
        for rank in list(self._connections):
            self._send(rank, Message(kind, size), *self._weight(weight))

    def _weight(self, weight: float) -> list[bytes]:
        """What follows a header that says of a weight."""
        return [] if self._store.weights is None else [np.float64(weight).tobytes()]

    def request_items(
        self, rank: int, *, count: int, into: OutputSet, first: int, excluded: Ints | None = None
    ) -> None:
        """See `Transport.request_items`."""
        request_id = self._open(_Request(rank, count, into, first))
        ids = [] if excluded is None else [excluded.tobytes()]
        message = Message(
            Kind.WANT_ITEMS,
            self._store.index.size,
            request_id,
            count,
            detail=0 if excluded is None else len(excluded),
            window=into.window,
            first=first,
        )
        self._send(rank, message, *ids)

    def request_update(self, rank: int, update: ItemUpdate) -> None:
        """See `Transport.request_update`."""
        request_id = self._open(_Request(rank, len(update.ids)))
        fields = sum(1 << place for place, name in enumerate(self._store.schema) if name in update.fields)
        parts = [update.fields[name].reshape(-1).data for name in self._store.schema if name in update.fields]
        if update.scores is not None:
            fields |= 1 << SCORES_BIT
            parts.append(update.scores.view(np.uint8).data)
        message = Message(Kind.WANT_UPDATE, self._store.index.size, request_id, len(update.ids), fields)
        self._send(rank, message, update.ids.tobytes(), *parts)

    def _open(self, request: _Request) -> int:
        self._last_request += 1
        self._requests[self._last_request] = request
        return self._last_request

    def collect(self) -> Collected:
        """See `Transport.collect`."""
        if not self._reached_in_time(lambda: not self._requests):
            for rank in {request.rank for request in self._requests.values()}:
                self._give_up(rank, f"no answer for {self._timeout_s:g} s")
        collected = Collected(not self._short and not self._requests, self._deliveries, self._updated)
        self._short, self._deliveries, self._updated = False, {}, 0
        return collected

    def close(self) -> None:
        """See `Transport.close`: replies under way are finished, then every other rank is told."""
        deadline = time.monotonic() + min(_LINGER_S, self._timeout_s)
        self._serve_until(self._quiet, deadline)
        self._closing = True
        for rank in list(self._connections):
            self._send(rank, Message(Kind.BYE, self._store.index.size))
        self._serve_until(self._quiet, deadline)
        for rank in list(self._connections):
            self._guarded(rank, self._connections[rank].finish_sending)
        self._serve_until(lambda: not self._connections, deadline)
        for rank in list(self._connections):
            self._disconnect(rank)
        self._channel.close()
        self._selector.close()
        self._woken.close()
        self._waker.close()

    def _quiet(self) -> bool:
        return self._channel.idle and all(connection.idle for connection in self._connections.values())

    def _serve_until(self, reached: Callable[[], bool], deadline: float) -> None:
        while not reached() and (remaining := deadline - time.monotonic()) > 0:
            self.serve(remaining)

    def _reached_in_time(self, reached: Callable[[], bool]) -> bool:
        """Serve until `reached` or interrupted; False once others had `timeout_s` for it.

        Time in which this process stood still does not count: a scheduler that suspends a job stops all of its ranks,
        and what came meanwhile is still to be read.
        """
        waited_s, nap_s = 0.0, min(_LONGEST_NAP_S, self._timeout_s / 10)
        while not reached() and not self.interrupted:
            if waited_s >= self._timeout_s:
                return False
            began_s = time.monotonic()
            self.serve(nap_s)
            waited_s += min(time.monotonic() - began_s, nap_s)
        return True

    def _let_go(self, rank: int) -> None:
        self.left.append(rank)
        self._disconnect(rank)

    def _give_up(self, rank: int, reason: str) -> None:
        if rank not in self._connections:
            return
        if not self._closing:
            self.lost[rank] = reason
            _log.warning("rank %d: going on without rank %d and its items: %s", self._store.rank, rank, reason)
        self._disconnect(rank)

    def _disconnect(self, rank: int) -> None:
        connection = self._connections.pop(rank)
        self._selector.unregister(connection)
        connection.close()
        self._windows.pop(rank, None)
        self._channel.drop(rank)
        del self.sizes[rank]
        self.weights.pop(rank, None)
        unanswered = [request_id for request_id, request in self._requests.items() if request.rank == rank]
        for request_id in unanswered:
            del self._requests[request_id]
        self._short = self._short or bool(unanswered)

    def _read(self, rank: int) -> Iterator[memoryview]:
        """What a rank sends, message after message; ValueError if it breaks the protocol."""
        handlers = {
            Kind.SIZE: self._receive_size,
            Kind.RESTORED: self._receive_restored,
            Kind.WANT_ITEMS: self._serve_items,
            Kind.ITEMS: self._receive_items,
            Kind.PLACED: self._receive_placed,
            Kind.WINDOW: self._receive_window,
            Kind.WANT_UPDATE: self._serve_update,
            Kind.UPDATED: self._receive_updated,
        }
        header = bytearray(HEADER_BYTES)
        while True:
            yield memoryview(header)
            message = Message.unpack(header)
            if message.kind is Kind.BYE:
                raise _FarewellError
            self.sizes[rank] = message.size
            if message.kind in handlers:
                yield from handlers[message.kind](rank, message)

    def _receive_size(self, rank: int, message: Message) -> Iterator[memoryview]:
        """Learn of another rank's store what its draws need; the number of items was read with the header."""
        if self._store.weights is not None:
            self.weights[rank] = yield from self._receive_weight()

    def _receive_restored(self, rank: int, message: Message) -> Iterator[memoryview]:
        """Learn the same of a store that a checkpoint has filled."""
        yield from self._receive_size(rank, message)
        self._restored.add(rank)

    def _receive_weight(self) -> Generator[memoryview, None, float]:
        if self._store.weights is None:
            return 0.0
        raw = bytearray(WEIGHT_BYTES)
        yield memoryview(raw)
        weight = float(np.frombuffer(raw)[0])
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"it says that its items weigh {weight}")
        return weight

    def _serve_items(self, rank: int, message: Message) -> Iterator[memoryview]:
        """Answer a draw of another rank."""
        if max(message.items, message.detail) > self._largest_draw:
            raise ValueError(f"it asks for {message.items} items at once, and for none of {message.detail}")
        excluded = np.empty(message.detail, np.int64)
        if message.detail:
            yield excluded.view(np.uint8).data
        choice = self._store.choose(message.items, self._serve_rng, excluded=excluded)
        count = len(choice.positions)
        window = self._windows.get(rank, {}).get(message.window)
        if window is not None:
            self._place_items(rank, message, choice, window)
        else:
            self._send_items(rank, message, choice)
        if rank in self._connections:
            self.counters.items_served += count
            self.counters.items_placed += count if window is not None else 0
            self.counters.bytes_sent += count * self._store.schema.nbytes

    def _place_items(self, rank: int, message: Message, choice: Choice, window: OutputSet) -> None:
        """One copy, from the store to where the asker wants the items."""
        if message.first + message.items > window.rows.count:
            raise ValueError(f"it asks for items beyond the {window.rows.count} rows of its window")
        self._store.copy(choice.positions, window, first=message.first)
        placed = Message(Kind.PLACED, self._store.index.size, message.request_id, len(choice.positions))
        self._send(rank, placed, *self._weight(choice.remaining))

    def _send_items(self, rank: int, message: Message, choice: Choice) -> None:
        count = len(choice.positions)
        staged = self._staging.acquire(max(count, 1))
        rows = self._store.copy_by_field(choice.positions, staged, first=0)
        known = staged.ids[:count].tobytes() + staged.labels[:count].tobytes()
        reply = Message(Kind.ITEMS, self._store.index.size, message.request_id, count)
        self._send(rank, reply, *self._weight(choice.remaining), known)
        if rank in self._connections and count:
            self._guarded(rank, lambda: self._send_rows(rank, message.request_id, staged, rows))

    def _send_rows(self, rank: int, request_id: int, staged: OutputSet, rows: Iterator[ByteRows]) -> None:
        """Each field is on its way while the next is still being copied."""
        self._channel.send(
            self._connections[rank],
            rank=rank,
            request_id=request_id,
            parts=(copies.reshape(-1).data for copies in rows),
            sent=lambda: self._staging.release(staged),
        )

    def _receive_items(self, rank: int, message: Message) -> Iterator[memoryview]:
        """Let the items of a reply land in the rows of the draw that asked for them."""
        request = self._request(rank, message)
        if request.into is None:
            raise ValueError("it sends items that were not asked for")
        delivery = Delivery(message.items, (yield from self._receive_weight()))
        if message.items:
            first, last = request.first, request.first + message.items
            yield request.into.ids[first:last].view(np.uint8).data
            yield request.into.labels[first:last].view(np.uint8).data
            yield from self._channel.receive(
                rank=rank,
                request_id=message.request_id,
                parts=list(request.into.rows.parts(first, message.items)),
                received=lambda: self._answered(message.request_id, delivery),
            )
        else:
            self._answered(message.request_id, delivery)

    def _receive_placed(self, rank: int, message: Message) -> Iterator[memoryview]:
        """Another rank has written the items where they belong."""
        into = self._request(rank, message).into
        if into is None or not into.window:
            raise ValueError("it says that it has written items where it was not asked to")
        self._answered(message.request_id, Delivery(message.items, (yield from self._receive_weight())))

    def _receive_window(self, rank: int, message: Message) -> Iterator[memoryview]:
        """Learn where another rank's draws can be written to, if its memory can be reached from here."""
        if message.items > _LARGEST_KEY_BYTES:
            raise ValueError(f"it names a window by {message.items} bytes")
        key = bytearray(message.items)
        yield memoryview(key)
        schema, rows = self._store.schema, self._largest_draw
        memory = self._channel.attach_region(rank, bytes(key), OutputSet.nbytes(schema, rows))
        where = "sent" if memory is None else "written in place"
        _log.debug("rank %d: items for window %d of rank %d are %s", self._store.rank, message.window, rank, where)
        if memory is not None:
            self._windows.setdefault(rank, {})[message.window] = OutputSet(schema, rows, memory=memory)

    def _answered(self, request_id: int, delivery: Delivery) -> None:
        request = self._requests.pop(request_id)
        if self._store.weights is None:
            self._short = self._short or delivery.items < request.count
        elif not delivery.items and delivery.remaining:
            raise ValueError(f"it delivers nothing though its items weigh {delivery.remaining}")
        self._deliveries[request.rank] = delivery
        self.counters.bytes_received += delivery.items * self._store.schema.nbytes

    def _request(self, rank: int, message: Message) -> _Request:
        request = self._requests.get(message.request_id)
        if request is None or request.rank != rank or message.items > request.count:
            raise ValueError(f"it answers {message.items} items to request {message.request_id}, which is not open")
        return request

    def _serve_update(self, rank: int, message: Message) -> Iterator[memoryview]:
        """Rewrite items for another rank."""
        names = [name for place, name in enumerate(self._store.schema) if message.detail >> place & 1]
        ids = np.empty(message.items, np.int64)
        fields = {name: np.empty((message.items, self._store.schema[name].nbytes), np.uint8) for name in names}
        scores = np.empty(message.items, np.float64) if message.detail >> SCORES_BIT & 1 else None
        yield ids.view(np.uint8).data
        for rows in fields.values():
            yield rows.reshape(-1).data
        if scores is not None:
            yield scores.view(np.uint8).data
        before = self._store.share
        written = self._store.update(ItemUpdate(ids, fields, scores))
        if self._store.share != before:
            self.announce()
        if rank in self._connections:  # else the announcement has shown that it is gone
            self._send(rank, Message(Kind.UPDATED, self._store.index.size, message.request_id, written))

    def _receive_updated(self, rank: int, message: Message) -> Iterator[memoryview]:
        """Count what another rank has rewritten."""
        self._request(rank, message)
        del self._requests[message.request_id]
        self._updated += message.items
        yield from ()


class _FarewellError(ConnectionError):
    """The other rank said that it leaves."""
