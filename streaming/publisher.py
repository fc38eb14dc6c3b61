"""The sending end of a run's data: frames to the edge, samples dealt out to the trainer's ranks.

One thread calls `pump` regularly; nothing here blocks except spooling to disk.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy.typing as npt
import zmq

from ptychoflow.streaming.access import ACKNOWLEDGEMENTS, Access, stream_of
from ptychoflow.streaming.codec import Arrays, ReceivingCodec
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.messages import (
    Acknowledge,
    ControlMessage,
    DataMessage,
    FirstPassImage,
    FirstPassResidual,
    FirstPassScore,
    Hello,
    Probe,
    Samples,
    ScanEnd,
    UnlabelledFrames,
)
from ptychoflow.streaming.outbox import Entry, Outbox, Spool
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.streaming.sockets import Sockets, may_have_more, receive_now
from ptychoflow.streaming.speakers import Speakers

log = logging.getLogger(__name__)

EDGE = "edge"
HIGHEST_PORT = 65_535


def rank_name(rank: int) -> str:
    """Return the consumer name of a trainer rank."""
    return f"rank-{rank}"


IMAGES_KEPT = 4
RETRY_S = 1.0
"""So long after a socket could not be opened it is tried again."""


class Publisher:
    """Numbers, sends, keeps and sends again, until every consumer has acknowledged. A context manager.

    Samples posted before the first rank announced itself wait, because the number of ranks is not known.

    Args:
        network: hosts, ports and keys of the run.
        spool_dir: folder for what memory does not hold.
        memory_bytes: unacknowledged arrays held in memory at most.
        edge: whether an edge will take frames.
        trainer: whether ranks will take samples.
        warn: tells the user; what it is told is logged in any case.
    """

    def __init__(
        self,
        network: NetworkSettings,
        *,
        spool_dir: Path,
        memory_bytes: int,
        edge: bool = True,
        trainer: bool = True,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self._network, self._warn = network, warn
        self._trainer = trainer
        self.spool = Spool(spool_dir, memory_bytes=memory_bytes)
        self.scores: deque[FirstPassScore | FirstPassResidual] = deque()
        """What the edge has told, oldest first, possibly more than once; for the caller to take."""
        self.images: deque[tuple[FirstPassImage, Arrays]] = deque(maxlen=IMAGES_KEPT)
        """Likewise, the newest ones."""
        self._codec: ReceivingCodec[ControlMessage] = ReceivingCodec(
            ControlMessage, "acknowledgements", network.max_message_bytes
        )
        self._sockets = Sockets(network.model_copy(update={"high_water_mark": network.batches_queued}), fans_out=True)
        self._control = self._bind(zmq.PULL, network.acknowledgements_port, ACKNOWLEDGEMENTS)
        self._speakers = Speakers(network, ACKNOWLEDGEMENTS)
        self._order = 0
        self._edge = self._open_outbox(EDGE, network.frames_port) if edge else None
        self._ranks: list[Outbox] = []
        self._undealt: list[Entry] = []
        self._next_rank: Iterator[int] = iter(())
        self._refused: dict[str, Hello] = {}
        """Hellos of ranks that no socket could be opened for, by consumer; all are of one trainer."""
        self._refused_at_s = 0.0
        self._kept = 0
        self._edge_ended = self._ranks_ended = False
        """The end of their streams was posted."""

    @property
    def malformed(self) -> int:
        """Messages of consumers that could not be read, or come from no consumer, or from another one."""
        return self._codec.malformed

    @property
    def unacknowledged(self) -> int:
        """Messages that some consumer has not finished with; those that are only held are not among them."""
        return self._kept

    @property
    def resent(self) -> int:
        """Messages sent again after a reconnection."""
        return sum(outbox.resent for outbox in self._outboxes())

    @property
    def world_size(self) -> int:
        """Ranks that samples are dealt out to; 0 until the first one announced itself."""
        return len(self._ranks)

    @property
    def everybody_is_there(self) -> bool:
        """Whether every consumer that is to come has announced itself."""
        edge_is_there = self._edge is None or self._edge.session is not None
        ranks_are_there = bool(self._ranks) and all(outbox.session is not None for outbox in self._ranks)
        return edge_is_there and (ranks_are_there or not self._trainer)

    def post_to_edge(self, message: DataMessage, arrays: Mapping[str, npt.NDArray[Any]] | None = None) -> None:
        """Queue a message for the edge; the arrays must not be changed afterwards."""
        if self._edge is not None:
            self._edge.post(self._keep(message, arrays))
            self._edge_ended |= isinstance(message, ScanEnd)

    def post_samples(self, message: DataMessage, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Queue a batch for the next rank in turn; the arrays must not be changed afterwards."""
        if self._trainer:
            self._deal(self._keep(message, arrays))

    def post_to_first_rank(self, message: Probe | UnlabelledFrames, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Queue what rank 0 alone is sent; the arrays must not be changed afterwards."""
        if self._trainer:
            self._deal(self._keep(message, arrays))

    def post_to_ranks(self, message: DataMessage) -> None:
        """Queue a message for every rank, behind the samples posted so far."""
        if self._trainer:
            self._deal(self._keep(message, {}))
            self._ranks_ended |= isinstance(message, ScanEnd)

    def pump(self, timeout_s: float) -> None:
        """Send what can be sent and take in acknowledgements; wait up to `timeout_s` when there is nothing to do.

        Blocks longer while the disk takes what it had no room for before.
        """
        self.spool.make_room()
        if self._refused and time.monotonic() > self._refused_at_s + RETRY_S:
            self._try_refused()
        if not self._exchange() and timeout_s > 0.0:
            self._wait(timeout_s)
            self._exchange()

    def close(self, linger_s: float = 0.0) -> None:
        """Close the sockets and delete the spool; what ZeroMQ still holds gets `linger_s` seconds to leave."""
        self._sockets.close(linger_s=linger_s)
        self.spool.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the sockets and delete the spool."""
        self.close()

    def _bind(self, kind: int, port: int, access: Access) -> zmq.Socket[bytes]:
        return self._sockets.bind(kind, self._network.acquisition_host, port, access)

    def _open_outbox(self, consumer: str, port: int) -> Outbox:
        socket = self._bind(zmq.PUSH, port, stream_of(consumer))
        breaks = self._sockets.monitor(socket, zmq.Event.DISCONNECTED)
        return Outbox(consumer, socket=socket, breaks=breaks, spool=self.spool)

    def _outboxes(self) -> list[Outbox]:
        return [*([self._edge] if self._edge else []), *self._ranks]

    def _keep(self, message: DataMessage, arrays: Mapping[str, npt.NDArray[Any]] | None) -> Entry:
        entry = Entry(self._order, message, dict(arrays or {}))
        self._order += 1
        self._kept += 1
        self.spool.store(entry)
        return entry

    def _deal(self, entry: Entry) -> None:
        if not self._ranks:
            self._undealt.append(entry)
        elif isinstance(entry.message, Samples):
            self._ranks[next(self._next_rank)].post(entry)
        elif isinstance(entry.message, Probe | UnlabelledFrames):
            self._ranks[0].post(entry)
        else:
            for outbox in self._ranks:
                outbox.post(entry)

    def _exchange(self) -> bool:
        """Take in what has come and send what can be sent; return whether there was anything."""
        for outbox in self._outboxes():
            outbox.look_for_breaks()
        received = self._receive_control_messages()
        sent = sum(outbox.send() for outbox in self._outboxes())
        return received + sent > 0

    def _wait(self, timeout_s: float) -> None:
        """Wait until a consumer says something, or takes more of what waits for it."""
        poller = zmq.Poller()
        poller.register(self._control, zmq.POLLIN)
        for outbox in self._outboxes():
            if outbox.can_send:
                poller.register(outbox.socket, zmq.POLLOUT)
        poller.poll(int(timeout_s * 1000))

    def _receive_control_messages(self) -> int:
        count = 0
        while may_have_more(self._control) and (parts := receive_now(self._control, copy=False)) is not None:
            count += 1
            decoded = self._codec.read(parts)
            if decoded is not None and self._is_of_its_consumer(decoded.body, parts[0]):
                self._handle(decoded.body, decoded.arrays)
        return count

    def _is_of_its_consumer(self, message: ControlMessage, part: zmq.Frame) -> bool:
        """Return whether a message comes from who may send it; drop it otherwise."""
        consumer = message.consumer if isinstance(message, Hello | Acknowledge) else EDGE
        believed = self._speakers.include(part, stream_of(consumer).clients)
        if not believed:
            self._codec.drop(f"{type(message).__name__} for {consumer!r} with the key of another role")
        return believed

    def _handle(self, message: ControlMessage, arrays: Arrays) -> None:
        match message:
            case Hello():
                self._handle_hello(message)
            case Acknowledge(consumer):
                for outbox in self._outboxes():
                    if outbox.consumer == consumer:
                        self._handle_acknowledgement(message, outbox)
                        self._say_if_complete(outbox)
            case FirstPassScore() | FirstPassResidual():
                self.scores.append(message)
            case FirstPassImage():
                self.images.append((message, arrays))

    def _handle_hello(self, hello: Hello) -> None:
        consumer, ranks = hello.consumer, hello.world_size
        if consumer not in (EDGE, *map(rank_name, range(ranks))):
            self._codec.drop(f"{consumer!r} of {ranks} ranks is no consumer")
            return
        if self._network.samples_port + ranks > HIGHEST_PORT + 1:
            self._codec.drop(f"there are no ports for {ranks} ranks from network.samples_port on")
            return
        if consumer != EDGE and ranks != self.world_size:
            try:
                self._share_among(ranks)
            except UserError as error:
                self._refuse(hello, error)
                return
        if consumer != EDGE:
            self._refused = {name: one for name, one in self._refused_with(ranks).items() if name != consumer}
        log.info("%s is here (session %r)", consumer, hello.session[:8])
        for outbox in self._outboxes():
            if outbox.consumer == consumer:
                self._kept += outbox.hello(hello.session, hello.next_sequence, hello.call)
                self._say_if_complete(outbox)

    def _refuse(self, hello: Hello, error: UserError) -> None:
        """Keep a hello to be tried again: its rank says it once, and waits."""
        ranks = hello.world_size
        others = self._refused_with(ranks)
        if not others:
            who = f"the trainer has {ranks} ranks, as {hello.consumer} says, which wait"
            text = f"{who}: {error}; this is tried again every second"
            log.warning("%s", text)
            if self._warn is not None:
                self._warn(text)
        self._refused = others | {hello.consumer: hello}
        self._refused_at_s = time.monotonic()

    def _refused_with(self, ranks: int) -> dict[str, Hello]:
        """Return the hellos that were refused to a trainer of so many ranks; those of another are out of date."""
        return {name: one for name, one in self._refused.items() if one.world_size == ranks}

    def _try_refused(self) -> None:
        for hello in list(self._refused.values()):
            self._handle_hello(hello)

    def _handle_acknowledgement(self, message: Acknowledge, outbox: Outbox) -> None:
        if outbox is not self._edge and message.session == outbox.session:
            # the ranks of this trainer are alive: those of another one were strangers
            self._refused = self._refused_with(self.world_size)
        if message.hold:
            self._kept -= outbox.hold(message.session, message.sequences)
        else:
            self._settle(outbox.acknowledge(message.session, message.sequences))

    def _say_if_complete(self, outbox: Outbox) -> None:
        """Let a consumer go that has finished with a stream that has ended."""
        ended = self._edge_ended if outbox is self._edge else self._ranks_ended
        if ended and outbox.complete:
            outbox.say_complete()

    def _settle(self, entries: list[Entry]) -> None:
        for entry in entries:
            if not entry.consumers:
                self._kept -= not entry.held
                self.spool.remove(entry)

    def _share_among(self, ranks: int) -> None:
        """Deal out everything unacknowledged, in order, among another number of ranks.

        Raises:
            UserError: a socket cannot be opened; all is as it was.
        """
        opened = self._open_ranks(range(len(self._ranks), ranks))
        log.info("dealing samples out to %d ranks (before: %d)", ranks, self.world_size)
        entries = {entry.order: entry for outbox in self._ranks for entry in outbox.pop_unacknowledged()}
        entries |= {entry.order: entry for entry in self._undealt}
        self._undealt.clear()
        self._ranks += opened
        for outbox in self._ranks[ranks:]:
            self._sockets.release(outbox.socket)
        del self._ranks[ranks:]
        for outbox in self._ranks:
            outbox.session = None
        self._next_rank = itertools.cycle(range(ranks))
        for order in sorted(entries):
            self._deal(entries[order])

    def _open_ranks(self, ranks: range) -> list[Outbox]:
        opened: list[Outbox] = []
        try:
            opened.extend(self._open_outbox(rank_name(rank), self._network.samples_port + rank) for rank in ranks)
        except UserError:
            for outbox in opened:
                self._sockets.release(outbox.socket)
            raise
        return opened
