"""The receiving end of a numbered stream: in order, each batch once per session, acknowledged when done with."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy.typing as npt
import zmq

from ptychoflow.streaming.access import ACKNOWLEDGEMENTS, Access, stream_of
from ptychoflow.streaming.codec import (
    Arrays,
    Codec,
    Decoded,
    MalformedMessage,
    OversizedMessage,
    ReceivingCodec,
)
from ptychoflow.streaming.connection import GIVEN_UP_AFTER_S, Change, Connection, has_left
from ptychoflow.streaming.messages import (
    Acknowledge,
    Complete,
    ControlMessage,
    DataMessage,
    FirstPassImage,
    FirstPassResidual,
    FirstPassScore,
    Hello,
    LeftOut,
)
from ptychoflow.streaming.outbox import address
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.streaming.sockets import Sockets, receive_now

log = logging.getLogger(__name__)

SCORES_REPEATED = 64
"""Newest scores that are told again after a break of the connection."""
LEAVE_PATIENCE_S = 300.0
"""How long a consumer that has finished waits to hear that its acknowledgements came."""
POLL_S = 0.05
AWAY_S = 1.0
"""A publisher that has been away for so long is looked for."""
WATCHED_EVERY = 16
"""Messages after which the connections are looked at, should there always be another one."""
LINGER_S = 1.0
EARLY_MOST = 256
"""Messages that wait for one before them: more than are ever on their way at once, and it will not come by itself."""
STALLED_S = 5.0
"""So long they wait before this is asked for again; each time twice as long, as the network may be slow."""
HELLOS_ANSWERED = 2
"""Messages are taken that answer the last hello, or the one before while nothing is left of an earlier publisher."""


@dataclass(frozen=True)
class Delivery:
    """A message of the stream; its arrays are read-only views of what was received."""

    sequence: int
    message: DataMessage
    arrays: Arrays


class Inbox:
    """Receives one consumer's stream from the publisher. Use it from one thread only; a context manager.

    After a break of the connection the publisher sends again what is not acknowledged; what this session has
    already had is dropped and counted in `duplicates`. A message larger than `network.max_message_bytes` is left out,
    counted in `oversized` and told to `warn`, and not sent again.

    Args:
        network: hosts, ports and keys of the run.
        consumer: `edge` or `rank-R`.
        port: the publisher's port for this consumer.
        world_size: ranks of the trainer; 0 from an edge.
        warn: tells the user; what it is told is logged in any case.
        wake: ends the waiting of `receive` while it is readable.
    """

    def __init__(
        self,
        network: NetworkSettings,
        *,
        consumer: str,
        port: int,
        world_size: int = 0,
        warn: Callable[[str], None] | None = None,
        wake: socket.socket | None = None,
    ) -> None:
        self.duplicates = 0
        self.oversized = self._messages_left_out = 0
        self._network, self._port, self._warn = network, port, warn
        self._consumer, self._world_size = consumer, world_size
        self._session = uuid.uuid4().hex
        self._calls = 0
        self._addresses: deque[str] = deque(maxlen=HELLOS_ANSWERED)
        self._codec: ReceivingCodec[DataMessage] = ReceivingCodec(
            DataMessage, f"messages to {consumer}", network.max_message_bytes
        )
        self._control: Codec[ControlMessage] = Codec(ControlMessage)
        self._unsent: deque[list[bytes | memoryview]] = deque()
        """What the publisher is to be told, while it is away for long."""
        self._next_sequence = 0
        self._early: dict[int, Delivery] = {}
        self._early_most = EARLY_MOST + 4 * network.batches_queued
        self._stalled_at = -1
        """What the messages that came early have waited for since `_stalled_since_s`."""
        self._stalled_since_s, self._patience_s = 0.0, STALLED_S
        self._shared = False
        self._unsettled: set[int] = set()
        self._left_out: set[int] = set()
        self._refused_at = -1
        self._unwatched = 0
        self._complete = False
        self._held: set[int] = set()
        self._scores: deque[FirstPassScore] = deque(maxlen=SCORES_REPEATED)
        self._sockets = Sockets(network.model_copy(update={"high_water_mark": network.batches_queued}))
        self._poller = zmq.Poller()
        if wake is not None:
            self._poller.register(wake, zmq.POLLIN)
        self._data_access = stream_of(consumer)
        self._control_connection = self._connect(zmq.PUSH, network.acknowledgements_port, ACKNOWLEDGEMENTS)
        self._data_connection = self._connect(zmq.PULL, port, self._data_access)
        self._say_hello()

    @property
    def malformed(self) -> int:
        """Messages that could not be read."""
        return self._codec.malformed

    def receive(self, timeout_s: float) -> Delivery | None:
        """Return the next message in order, or None after `timeout_s` seconds without one, or when it is woken."""
        self._send_waiting()
        if (delivery := self._next_in_order()) is not None:
            return delivery
        if not self._take():
            self._watch_connections()
            self._look_for_progress()
            if timeout_s > 0.0:
                self._wait(timeout_s)
        return self._next_in_order()

    def attend(self) -> None:
        """Take in what becomes of the connections; to be called again and again while nothing is received."""
        self._send_waiting()
        self._watch_connections()

    def acknowledge(self, sequences: Iterable[int]) -> None:
        """Tell the publisher that it may forget these messages."""
        if settled := list(sequences):
            self._unsettled.difference_update(settled)
            self._held.difference_update(settled)
            self._send(Acknowledge(self._consumer, self._session, settled))

    def hold(self, sequences: Iterable[int]) -> None:
        """Tell the publisher to keep these messages only for an inbox after this one, until they are acknowledged."""
        if held := list(sequences):
            self._unsettled.difference_update(held)
            self._held.update(held)
            self._send(Acknowledge(self._consumer, self._session, held, hold=True))

    def report_score(self, score: FirstPassScore) -> None:
        """Tell the publisher how good an image is, again after every break of the connection."""
        self._scores.append(score)
        self._send(score)

    def report_residual(self, residual: FirstPassResidual) -> None:
        """Tell the publisher how well the newest frames are explained; the next one makes up for one that is lost."""
        self._send(residual)

    def send_image(self, image: FirstPassImage, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Send the publisher an image, unless it is away: it can do without."""
        if not self._unsent:
            self._unsent.append(self._control.encode(image, arrays))
            self._send_waiting()

    def wait_until_complete(self, stop: threading.Event, patience_s: float = LEAVE_PATIENCE_S) -> None:
        """Stay until the publisher has every acknowledgement, for a consumer that has finished with the whole stream.

        Those on their way are lost with a connection that breaks off, and a publisher that lacks one waits for ever.
        Blocks until it says that it has all, or has left, or `stop` is set; for `patience_s` at most, and then warns.
        What comes meanwhile is acknowledged.
        """
        deadline_s, connected_s = time.monotonic() + patience_s, time.monotonic()
        while not (self._complete or stop.is_set()):
            if (delivery := self.receive(POLL_S)) is not None:
                self.acknowledge([delivery.sequence])
            now_s = time.monotonic()
            if now_s > deadline_s:
                self._tell(
                    f"{self._consumer} has finished, and the acquisition has not confirmed it for {patience_s:.0f} s: "
                    "should it still wait, start this part again"
                )
                return
            if self._control_connection.stands:
                connected_s = now_s
            elif now_s > connected_s + AWAY_S:
                if has_left(self._network.acquisition_host, self._network.acknowledgements_port):
                    return
                connected_s = time.monotonic()

    def close(self) -> None:
        """Close the sockets; acknowledgements on their way get a second to leave, and as long to set out."""
        deadline_s = time.monotonic() + LINGER_S
        while self._unsent and time.monotonic() < deadline_s:
            self._control_connection.socket.poll(int(POLL_S * 1000), zmq.POLLOUT)
            self._send_waiting()
        self._sockets.close(linger_s=LINGER_S)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the sockets."""
        self.close()

    def _connect(self, kind: int, port: int, access: Access, *, replaces: bool = False) -> Connection:
        host = self._network.acquisition_host
        roles = self._data_access.clients
        connection = Connection(
            self._sockets, kind, host=host, port=port, access=access, roles=roles, replaces=replaces
        )
        self._poller.register(connection.monitor, zmq.POLLIN)
        if kind == zmq.PULL:
            self._poller.register(connection.socket, zmq.POLLIN)
        return connection

    def _take(self) -> bool:
        """Take in the message that is there, and return whether there was one. Does not wait."""
        if not (parts := receive_now(self._data_connection.socket, copy=False)):
            return False
        self._accept(parts)
        self._unwatched += 1
        if self._unwatched >= WATCHED_EVERY:
            self._watch_connections()
        return True

    def _watch_connections(self) -> None:
        self._unwatched = 0
        for connection in (self._control_connection, self._data_connection):
            for change in connection.read_changes():
                self._ask_again(change)

    def _look_for_progress(self) -> None:
        """Ask again for a message that others have waited for too long: it was lost with a connection to nobody."""
        if not (self._early or self._left_out):
            return
        now_s = time.monotonic()
        if self._stalled_at != self._next_sequence:
            self._stalled_at, self._stalled_since_s, self._patience_s = self._next_sequence, now_s, STALLED_S
        elif now_s > self._stalled_since_s + self._patience_s:
            log.info("%s asks again for message %d, which others wait for", self._consumer, self._next_sequence)
            self._stalled_since_s, self._patience_s = now_s, 2.0 * self._patience_s
            self._say_hello()

    def _wait(self, timeout_s: float) -> None:
        """Wait for a message and take it in, or for anything else that happens to the connections."""
        if self._data_connection.broken:
            timeout_s = min(timeout_s, GIVEN_UP_AFTER_S)
        ready = dict(self._poller.poll(int(timeout_s * 1000)))
        if self._control_connection.monitor in ready or self._data_connection.monitor in ready:
            self._watch_connections()
        if self._data_connection.socket in ready:
            self._take()
        elif self._data_connection.given_up:
            self._note_refusal()

    def _note_refusal(self) -> None:
        """Connect again after a message that is too large; it is the next one if that happens twice at this place.

        Once is no proof: what came first may have been left from before the publisher knew where to go on.
        """
        if self._refused_at == self._next_sequence:
            self._leave_out_oversized(self._next_sequence)
        self._refused_at = self._next_sequence
        self._connect_again()

    def _connect_again(self) -> None:
        for one in (self._data_connection.socket, self._data_connection.monitor):
            self._poller.unregister(one)
        self._sockets.release(self._data_connection.socket)
        self._data_connection = self._connect(zmq.PULL, self._port, self._data_access, replaces=True)

    def _ask_again(self, change: Change) -> None:
        """Announce itself after a break of either connection: another publisher would wait for that.

        On a connection that this inbox has replaced nothing is left of a publisher before, so that what comes there in
        answer to the last hello is good as well. Were it dropped, a refusal behind it would be taken for its own.
        """
        log.info("%s is connected again and asks for what it missed", self._consumer)
        if change is Change.RESTORED:
            self._addresses.clear()
            self._left_out.clear()
        self._say_hello()
        for score in self._scores:
            self._send(score)

    def _say_hello(self) -> None:
        """Announce itself, and take what answers this; another publisher numbers its messages anew."""
        hello = Hello(self._consumer, self._session, self._world_size, self._next_sequence, self._calls)
        self._calls += 1
        self._addresses.append(address(hello.session, hello.call))
        self._early.clear()
        self._send(hello)

    def _accept(self, parts: list[zmq.Frame]) -> None:
        try:
            decoded = self._codec.decode(parts)
        except OversizedMessage as error:
            if error.session in self._addresses:
                self._leave_out_oversized(error.sequence)
            return
        except MalformedMessage as error:
            self._codec.drop(error)
            return
        self._sort_in(decoded)

    def _sort_in(self, decoded: Decoded[DataMessage]) -> None:
        if decoded.session not in self._addresses:
            return  # of a publisher before, or meant for a session before; it is sent again after our hello
        if isinstance(decoded.body, Complete):
            self._complete = True
            return
        self._complete = False
        if isinstance(decoded.body, LeftOut):
            self._leave_out(decoded.sequence, "the acquisition could not read it back from its disk; resume the run")
            return
        if decoded.sequence < self._next_sequence or decoded.sequence in self._early:
            self.duplicates += 1
            self._acknowledge_again(decoded.sequence)
            return
        self._early[decoded.sequence] = Delivery(decoded.sequence, decoded.body, decoded.arrays)
        if len(self._early) > self._early_most and self._next_sequence not in self._early:
            self._ask_for_the_rest()

    def _ask_for_the_rest(self) -> None:
        """Ask again for a message that somebody else must have taken: connections do not lose one in the middle."""
        if not self._shared:
            self._tell(
                f"{self._consumer} is sent only some of its messages: another {self._consumer} seems to take the "
                "others; stop one of them"
            )
        self._shared = True
        self._say_hello()

    def _acknowledge_again(self, sequence: int) -> None:
        """Repeat an acknowledgement that was lost with its connection."""
        if sequence in self._held:
            self.hold([sequence])
        elif sequence < self._next_sequence and sequence not in self._unsettled:
            self.acknowledge([sequence])

    def _leave_out_oversized(self, sequence: int) -> None:
        limit = self._network.max_message_bytes
        if self._leave_out(
            sequence, f"it is larger than network.max_message_bytes = {limit}; raise that on both sides"
        ):
            self.oversized += 1

    def _leave_out(self, sequence: int, why: str) -> bool:
        """Go on without a message; without the acknowledgement it would be sent again and again.

        Returns:
            Whether it is left out for the first time.
        """
        if sequence < self._next_sequence or sequence in self._left_out:
            self._acknowledge_again(sequence)
            return False
        self._left_out.add(sequence)
        self._messages_left_out += 1
        self._tell(
            f"{self._consumer} left out message {sequence} of the acquisition, {self._messages_left_out} in all: {why}"
        )
        return True

    def _tell(self, text: str) -> None:
        log.warning("%s", text)
        if self._warn is not None:
            self._warn(text)

    def _next_in_order(self) -> Delivery | None:
        while self._next_sequence in self._left_out:
            self._left_out.remove(self._next_sequence)
            self._next_sequence += 1
            self.acknowledge([self._next_sequence - 1])
        delivery = self._early.pop(self._next_sequence, None)
        if delivery is not None:
            self._next_sequence += 1
            self._unsettled.add(delivery.sequence)
        return delivery

    def _send(self, message: ControlMessage) -> None:
        self._unsent.append(self._control.encode(message))
        self._send_waiting()

    def _send_waiting(self) -> None:
        """Send what the publisher has yet to be told, as far as that can be done without blocking."""
        with contextlib.suppress(zmq.Again):
            while self._unsent:
                self._control_connection.socket.send_multipart(self._unsent[0], flags=zmq.DONTWAIT)
                self._unsent.popleft()
