"""The receiving end of a numbered stream: in order, each batch once per session, acknowledged when done with."""

from __future__ import annotations

import logging
import uuid
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import zmq

from streaming.codec import Arrays, Codec, Decoded, MalformedMessage
from streaming.messages import Acknowledge, ControlMessage, DataMessage, FirstPassScore, Hello
from streaming.settings import NetworkSettings
from streaming.sockets import Sockets

log = logging.getLogger(__name__)

SCORES_REPEATED = 64
"""Newest scores that are told again after a break of the connection."""


@dataclass(frozen=True)
class Delivery:
    """A message of the stream; its arrays are read-only views of what was received."""

    sequence: int
    message: DataMessage
    arrays: Arrays


class Inbox:
    """Receives one consumer's stream from the publisher. Use it from one thread only; a context manager.

    After a break of the connection the publisher sends again what is not acknowledged; what this session has
    already had is dropped and counted in `duplicates`.

    Args:
        network: hosts, ports and keys of the run.
        consumer: `edge` or `rank-R`.
        port: the publisher's port for this consumer.
        world_size: ranks of the trainer; 0 from an edge.
    """

    def __init__(self, network: NetworkSettings, *, consumer: str, port: int, world_size: int = 0) -> None:
        self.duplicates = 0
        self.malformed = 0
        self._consumer, self._world_size = consumer, world_size
        self._session = uuid.uuid4().hex
        self._codec: Codec[DataMessage] = Codec(DataMessage, network.max_message_bytes)
        self._control: Codec[ControlMessage] = Codec(ControlMessage)
        self._next_sequence = 0
        self._early: dict[int, Delivery] = {}
        self._unsettled: set[int] = set()
        self._scores: deque[FirstPassScore] = deque(maxlen=SCORES_REPEATED)
        self._sockets = Sockets(network)
        host = network.acquisition_host
        self._acknowledgements = self._sockets.connect(zmq.PUSH, host, network.acknowledgements_port)
        self._pull = self._sockets.connect(zmq.PULL, host, port)
        self._connections = [self._sockets.monitor(one) for one in (self._acknowledgements, self._pull)]
        self._handshakes = 0
        self._poller = zmq.Poller()
        for socket in (self._pull, *self._connections):
            self._poller.register(socket, zmq.POLLIN)
        self._say_hello()

    def receive(self, timeout_s: float) -> Delivery | None:
        """Return the next message in order, or None after `timeout_s` seconds without one."""
        if (delivery := self._take_early()) is not None:
            return delivery
        ready = dict(self._poller.poll(int(timeout_s * 1000)))
        for monitor in self._connections:
            if monitor in ready:
                monitor.recv_multipart()
                self._note_handshake()
        if self._pull in ready:
            self._accept(self._pull.recv_multipart(copy=False))
        return self._take_early()

    def acknowledge(self, sequences: Iterable[int]) -> None:
        """Tell the publisher that it may forget these messages."""
        if settled := list(sequences):
            self._unsettled.difference_update(settled)
            self._send(Acknowledge(self._consumer, self._session, settled))

    def report_score(self, score: FirstPassScore) -> None:
        """Tell the publisher how good an image is, again after every break of the connection."""
        self._scores.append(score)
        self._send(score)

    def close(self) -> None:
        """Close the sockets; acknowledgements on their way get a second to leave."""
        for socket in (self._acknowledgements, self._pull):
            socket.disable_monitor()
        self._sockets.close(linger_s=1.0)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the sockets."""
        self.close()

    def _note_handshake(self) -> None:
        self._handshakes += 1
        if self._handshakes > len(self._connections):
            log.info("%s is connected again and asks for what it missed", self._consumer)
            self._early.clear()
            self._say_hello()
            for score in self._scores:
                self._send(score)

    def _say_hello(self) -> None:
        self._send(Hello(self._consumer, self._session, self._world_size, self._next_sequence))

    def _accept(self, parts: list[zmq.Frame]) -> None:
        try:
            decoded = self._codec.decode(parts)
        except MalformedMessage as error:
            self.malformed += 1
            log.warning("%s dropped a malformed message: %s", self._consumer, error)
            return
        self._sort_in(decoded)

    def _sort_in(self, decoded: Decoded[DataMessage]) -> None:
        if decoded.session != self._session:
            return  # meant for a session before this one; the publisher numbers it anew after our hello
        if decoded.sequence < self._next_sequence or decoded.sequence in self._early:
            self.duplicates += 1
            self._acknowledge_again(decoded.sequence)
            return
        self._early[decoded.sequence] = Delivery(decoded.sequence, decoded.body, decoded.arrays)

    def _acknowledge_again(self, sequence: int) -> None:
        """Repeat an acknowledgement that was lost with its connection."""
        if sequence < self._next_sequence and sequence not in self._unsettled:
            self.acknowledge([sequence])

    def _take_early(self) -> Delivery | None:
        delivery = self._early.pop(self._next_sequence, None)
        if delivery is not None:
            self._next_sequence += 1
            self._unsettled.add(delivery.sequence)
        return delivery

    def _send(self, message: ControlMessage) -> None:
        self._acknowledgements.send_multipart(self._control.encode(message))
