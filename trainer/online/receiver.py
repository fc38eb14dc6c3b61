"""The thread between the network and the loop: receives samples, acknowledges those that are done with."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from ptychoflow.streaming.inbox import Inbox
from ptychoflow.streaming.messages import ScanEnd
from ptychoflow.streaming.publisher import rank_name
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.trainer.online.ingest import SampleIngest

POLL_S = 0.02
LETTING_GO_S = 20.0
"""An acquisition that is there sends what it still has within a second."""


def let_go_again(network: NetworkSettings, *, rank: int, world_size: int, stop: threading.Event) -> None:
    """Acknowledge what the acquisition still has for a rank, all of which ranks before this one are done with.

    Blocks until the end of the stream has come or `stop` is set, for `LETTING_GO_S` at most: there may be nothing left.
    """
    deadline_s = time.monotonic() + LETTING_GO_S
    consumer, port = rank_name(rank), network.samples_port + rank
    with Inbox(network, consumer=consumer, port=port, world_size=world_size) as inbox:
        while time.monotonic() < deadline_s and not stop.is_set():
            if (delivery := inbox.receive(POLL_S)) is not None:
                inbox.acknowledge([delivery.sequence])
                if isinstance(delivery.message, ScanEnd):
                    return


class SampleReceiver:
    """Receives one rank's samples into `ingest` while it is open; a context manager.

    Nothing is received while the queue of samples is full, so the publisher spools instead of this process growing.
    """

    def __init__(
        self, network: NetworkSettings, ingest: SampleIngest, *, rank: int, world_size: int, warn: Callable[[str], None]
    ) -> None:
        self._network, self._ingest = network, ingest
        self._rank, self._world_size, self._warn = rank, world_size, warn
        self._closing = threading.Event()
        self._finished_unless: threading.Event | None = None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="receiver")

    def __enter__(self) -> Self:
        """Begin to receive."""
        self._executor.submit(self._run).add_done_callback(self._note_end)
        return self

    def __exit__(self, *_: object) -> None:
        """Acknowledge what is done with, and stop."""
        self._closing.set()
        self._executor.shutdown()

    def finish(self, stop: threading.Event) -> None:
        """Acknowledge all that is done with, which is the whole stream, and stay until the acquisition has heard that.

        Blocks for minutes where it cannot be reached, or until `stop` is set.
        """
        self._finished_unless = stop
        self._closing.set()
        self._executor.shutdown()

    def _run(self) -> None:
        consumer, port = rank_name(self._rank), self._network.samples_port + self._rank
        with Inbox(self._network, consumer=consumer, port=port, world_size=self._world_size, warn=self._warn) as inbox:
            while not self._closing.is_set():
                inbox.acknowledge(self._ingest.queue.pop_acknowledgeable())
                if not self._ingest.queue.wait_for_room(POLL_S):
                    inbox.attend()
                elif (delivery := inbox.receive(POLL_S)) is not None:
                    self._ingest.route_message(delivery.sequence, delivery.message, delivery.arrays)
            inbox.acknowledge(self._ingest.queue.pop_acknowledgeable())
            if self._finished_unless is not None:
                inbox.wait_until_complete(self._finished_unless)

    def _note_end(self, thread: Future[None]) -> None:
        self._ingest.queue.failure = thread.exception()
