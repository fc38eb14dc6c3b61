"""The thread between the network and the loop: receives samples, acknowledges those that are done with."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from ptychoflow.streaming.inbox import Inbox
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.trainer.online.ingest import SampleIngest

POLL_S = 0.02


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
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="receiver")

    def __enter__(self) -> Self:
        """Begin to receive."""
        self._executor.submit(self._run).add_done_callback(self._note_end)
        return self

    def __exit__(self, *_: object) -> None:
        """Acknowledge what is done with, and stop."""
        self._closing.set()
        self._executor.shutdown()

    def _run(self) -> None:
        port = self._network.samples_port + self._rank
        consumer = f"rank-{self._rank}"
        with Inbox(self._network, consumer=consumer, port=port, world_size=self._world_size, warn=self._warn) as inbox:
            while not self._closing.is_set():
                inbox.acknowledge(self._ingest.queue.pop_acknowledgeable())
                if self._ingest.queue.wait_for_room(POLL_S) and (delivery := inbox.receive(POLL_S)) is not None:
                    self._ingest.route_message(delivery.sequence, delivery.message, delivery.arrays)
            inbox.acknowledge(self._ingest.queue.pop_acknowledgeable())

    def _note_end(self, thread: Future[None]) -> None:
        self._ingest.queue.failure = thread.exception()
