"""Publishers and inboxes over real sockets, and what goes between them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import zmq
from support import wait_until

from ptychoflow.streaming.codec import Codec
from ptychoflow.streaming.inbox import Delivery, Inbox
from ptychoflow.streaming.messages import ControlMessage, Frames, Hello, Samples
from ptychoflow.streaming.outbox import address
from ptychoflow.streaming.publisher import Publisher, rank_name
from ptychoflow.streaming.settings import NetworkSettings

MakePublisher = Callable[..., Publisher]


class PlayedPublisher:
    """Sockets in the place of a publisher: what an inbox says is heard, and it gets what a test sends. Close it."""

    def __init__(self, network: NetworkSettings) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._data, self._control = self._context.socket(zmq.PUSH), self._context.socket(zmq.PULL)
        self._data.bind(f"tcp://127.0.0.1:{network.frames_port}")
        self._control.bind(f"tcp://127.0.0.1:{network.acknowledgements_port}")
        self.hellos: list[Hello] = []
        self.got: list[int] = []
        """What the inbox has delivered, as `numbers`."""

    def send(self, sequence: int, *, answers: int | None = None, side: int = 1) -> None:
        """Send a message of `side` × `side` pixels of its number, as an answer to a hello, the last one by default."""
        session = address(self.hellos[0].session, self.hellos[-1].call if answers is None else answers)
        arrays = {"diffraction": np.full((1, side, side), sequence, np.uint16)}
        parts = Codec(Frames).encode(Frames(0, 0.0, 0.0), arrays, session=session, sequence=sequence)
        self._data.send_multipart(parts)

    def is_greeted(self, inbox: Inbox, times: int) -> bool:
        """Let the inbox go on; return whether it has said so many hellos."""
        if (delivery := inbox.receive(0.01)) is not None:
            self.got.extend(numbers([delivery]))
        while self._control.poll(0):
            body = Codec(ControlMessage).decode(self._control.recv_multipart()).body
            if isinstance(body, Hello):
                self.hellos.append(body)
        return len(self.hellos) == times

    def close(self) -> None:
        self._context.destroy(linger=0)


def edge_inbox(network: NetworkSettings, port: int | None = None) -> Inbox:
    return Inbox(network, consumer="edge", port=port or network.frames_port)


def rank_inbox(network: NetworkSettings, rank: int, world_size: int) -> Inbox:
    return Inbox(network, consumer=rank_name(rank), port=network.samples_port + rank, world_size=world_size)


def post_batches(publisher: Publisher, count: int, *, start: int = 0, side: int = 16) -> None:
    for number in range(start, start + count):
        frames = np.full((4, side, side), number, np.uint16)
        publisher.post_to_edge(Frames(0, 0.0, 0.0), {"diffraction": frames})


def collect(publisher: Publisher, inbox: Inbox, count: int, *, acknowledge: bool = True) -> list[Delivery]:
    got: list[Delivery] = []

    def step() -> bool:
        publisher.pump(0.0)
        if (delivery := inbox.receive(0.01)) is not None:
            got.append(delivery)
            if acknowledge:
                inbox.acknowledge([delivery.sequence])
        return len(got) >= count

    wait_until(step)
    return got


def settle(publisher: Publisher) -> None:
    def step() -> bool:
        publisher.pump(0.01)
        return publisher.unacknowledged == 0

    wait_until(step)


def numbers(deliveries: list[Delivery]) -> list[int]:
    return [int(delivery.arrays["diffraction"][0, 0, 0]) for delivery in deliveries]


def post_samples(publisher: Publisher, batches: int, *, start: int = 0) -> None:
    for number in range(start, start + batches):
        publisher.post_samples(Samples(0), {"diffraction": np.full((2, 4, 4), number, np.uint16)})
