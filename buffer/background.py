"""The one thread that owns this rank's store: it inserts, draws, and serves other ranks."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptychoflow.buffer.candidate_writer import Offer
from ptychoflow.buffer.draws import Draw
from ptychoflow.buffer.generators import Generators
from ptychoflow.buffer.item_update import ItemUpdate
from ptychoflow.buffer.local_store import LocalStore
from ptychoflow.buffer.outputs import Outputs
from ptychoflow.buffer.statistics import StepClock
from ptychoflow.buffer.transport.transport import Transport
from ptychoflow.buffer.work import Result, Work


@dataclass(frozen=True)
class DrawTiming:
    """Seconds of background work for one offer."""

    populate_s: float
    augment_s: float


class Background:
    """Performs one piece of work after the other; between and during them it serves other ranks.

    Since one thread reads and writes all live items, no lock guards them and none is held while bytes are copied; the
    copies themselves release the interpreter's lock.
    """

    def __init__(
        self,
        store: LocalStore,
        transport: Transport,
        outputs: Outputs,
        draw: Draw,
        *,
        generators: Generators,
        clock: StepClock,
    ) -> None:
        self._store = store
        self._transport = transport
        self._outputs = outputs
        self._draw = draw
        self._generators = generators
        self._clock = clock
        self._queue: deque[Work[Any]] = deque()
        self._newest_offer: Offer | None = None
        self._stopping = False
        self._ended = False
        self._lock = threading.Lock()
        self.draws = 0
        self.drawn = 0
        self.cpu_s = 0.0
        self._thread = threading.Thread(target=self._run, name="rehearsal-buffer", daemon=True)
        self._thread.start()

    def submit(self, action: Callable[[], Result], *, after: Future[None] | None = None) -> Work[Result]:
        """Queue work for the background thread, to be done once `after` is; returns at once.

        What waits when the thread ends fails with a RuntimeError.
        """
        work = Work(action, after)
        with self._lock:
            if self._ended:
                raise RuntimeError("The buffer's background thread has ended.")
            self._queue.append(work)
            self._transport.wake()
        if after is not None:
            after.add_done_callback(lambda _: self._wake())
        return work

    def _wake(self) -> None:
        with self._lock:
            if not self._ended:
                self._transport.wake()

    def submit_offer(self, offer: Offer) -> Work[DrawTiming]:
        """Queue an insertion and the draw that follows it."""
        self._newest_offer = offer
        return self.submit(lambda: self._populate_and_augment(offer), after=offer.arrival)

    def update_items(self, update: ItemUpdate) -> int:
        """Rewrite items here and on other ranks; for the background thread."""
        homes = self._store.homes(update.ids)
        for rank in np.unique(homes).tolist():
            if rank in self._transport.sizes:
                self._transport.request_update(rank, update.part(homes == rank))
        before = self._store.share
        written = self._store.update(update.part(homes == self._store.rank))
        if self._store.share != before:
            self._transport.announce()
        return written + self._transport.collect().updated

    def close(self) -> None:
        """End the thread once its current work is done; what waits fails."""
        with self._lock:
            self._stopping = True
            if not self._ended:
                self._transport.interrupt()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._perform_next()
                self.cpu_s = time.thread_time()
        finally:
            self._end(sys.exception())
            self._transport.close()

    def _perform_next(self) -> None:
        if self._next_is_ready:
            self._queue[0].perform()
            self._queue.popleft()
        self._transport.serve(0 if self._stopping or self._next_is_ready else None)

    @property
    def _next_is_ready(self) -> bool:
        return bool(self._queue) and self._queue[0].is_ready

    def _end(self, cause: BaseException | None) -> None:
        with self._lock:
            self._ended = True
            waiting = list(self._queue)
            self._queue.clear()
        self._store.free.close()
        for work in waiting:
            work.give_up(cause)

    def _populate_and_augment(self, offer: Offer) -> DrawTiming:
        started = time.perf_counter()
        wanted = offer is self._newest_offer
        begun = wanted and self._draw.precedes_insertion
        if begun:
            self._draw.begin()
        asked = time.perf_counter()
        self._populate(offer)
        populated = time.perf_counter()
        if wanted:
            self._fill_outputs(begun=begun)
        populate_s = populated - asked
        timing = DrawTiming(populate_s=populate_s, augment_s=time.perf_counter() - started - populate_s)
        self._clock.record_background(timing.populate_s, timing.augment_s)
        return timing

    def _populate(self, offer: Offer) -> None:
        before = self._store.share
        self._store.insert(offer.rows, offer.candidates(), self._generators.policy)
        if self._store.share != before:
            self._transport.announce()

    def _fill_outputs(self, *, begun: bool) -> None:
        """Draw; starts again with the ranks that remain if one was lost meanwhile."""
        if not begun:
            self._draw.begin()
        while not self._draw.complete() and not self._stopping:
            self._outputs.abandon_filling()
            self._draw.begin()
        self._outputs.filling.finish()
        self.draws += 1
        self.drawn += self._outputs.filling.filled
