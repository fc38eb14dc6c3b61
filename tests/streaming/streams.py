"""Publishers and inboxes over real sockets, and what goes between them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from support import wait_until

from ptychoflow.streaming.inbox import Delivery, Inbox
from ptychoflow.streaming.messages import (
    Frames,
    Samples,
)
from ptychoflow.streaming.publisher import Publisher, rank_name
from ptychoflow.streaming.settings import NetworkSettings

MakePublisher = Callable[..., Publisher]


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
