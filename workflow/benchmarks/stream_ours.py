"""Our side of the stream's benchmark: a publisher here, an edge's and a rank's inbox in processes of their own."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.freed_memory import keep_freed_memory
from ptychoflow.streaming.inbox import Inbox
from ptychoflow.streaming.messages import Frames, Samples, ScanEnd
from ptychoflow.streaming.publisher import EDGE, Publisher, rank_name
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.workflow.benchmarks.paired_rounds import Took, processor_time_s
from ptychoflow.workflow.benchmarks.receiver_processes import receiver_processes

ACKNOWLEDGED_AT_ONCE, PATIENCE_S = 8, 0.02
"""The edge is done with all messages of a batch that it images at once, a rank with all that a checkpoint covers."""


class OurStream:
    """Sends batches until both consumers have acknowledged them. A context manager.

    Args:
        network: where the parts of this stream meet.
        batches: arrays of `Samples`, sent in turn; the edge gets their frames.
        spool_dir: for what memory does not hold, which is nothing here.
    """

    def __init__(self, network: NetworkSettings, batches: Sequence[Arrays], spool_dir: Path) -> None:
        self._network, self._batches, self._spool_dir = network, batches, spool_dir
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Start both consumers."""
        with self._stack as stack:
            publisher = Publisher(self._network, spool_dir=self._spool_dir, memory_bytes=1 << 33)
            self._publisher = stack.enter_context(publisher)
            receivers = [(_receive, (self._network, consumer)) for consumer in (EDGE, rank_name(0))]
            self._pids = [os.getpid(), *stack.enter_context(receiver_processes(receivers))]
            stack.callback(self._end)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """End both consumers."""
        self._stack.close()

    def measure(self, count: int) -> Took:
        """Send `count` batches to each consumer. Blocks until all are acknowledged."""
        began_s, cpu_began_s = time.perf_counter(), processor_time_s(self._pids)
        for number in range(count):
            batch = self._batches[number % len(self._batches)]
            self._publisher.post_to_edge(Frames(0, 0.0, 0.0), {"diffraction": batch["diffraction"]})
            self._publisher.post_samples(Samples(0), batch)
            self._publisher.pump(0.0)
        self._settle()
        frames = count * len(self._batches[0]["diffraction"])
        return Took(frames, time.perf_counter() - began_s, processor_time_s(self._pids) - cpu_began_s)

    def _end(self) -> None:
        self._publisher.post_to_edge(ScanEnd(0))
        self._publisher.post_to_ranks(ScanEnd(0))
        self._settle()

    def _settle(self) -> None:
        while self._publisher.unacknowledged:
            self._publisher.pump(0.05)


def _receive(network: NetworkSettings, consumer: str) -> None:
    """Receive until the end of the stream, and do nothing with it."""
    keep_freed_memory()  # as the edge and the trainer do
    port = network.frames_port if consumer == EDGE else network.samples_port
    ended = False
    with Inbox(network, consumer=consumer, port=port, world_size=int(consumer != EDGE)) as inbox:
        sequences: list[int] = []
        while not ended:
            delivery = inbox.receive(PATIENCE_S)
            if delivery is not None:
                sequences.append(delivery.sequence)
                ended = isinstance(delivery.message, ScanEnd)
            if delivery is None or ended or len(sequences) >= ACKNOWLEDGED_AT_ONCE:
                inbox.acknowledge(sequences)
                sequences = []
            del delivery
