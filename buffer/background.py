"""The one thread that owns this rank's store: it inserts, draws, and serves other ranks."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ptychoflow.buffer.generators import Generators
from ptychoflow.buffer.index import Ints
from ptychoflow.buffer.intake import Offer
from ptychoflow.buffer.local_store import LocalStore
from ptychoflow.buffer.memory import ByteRows
from ptychoflow.buffer.outputs import Outputs
from ptychoflow.buffer.sampling import plan_draw
from ptychoflow.buffer.statistics import StepClock
from ptychoflow.buffer.ticket import Ticket
from ptychoflow.buffer.transport.transport import Transport

Result = TypeVar("Result")


@dataclass(frozen=True)
class DrawTiming:
    """Seconds of background work for one offer."""

    populate_s: float
    augment_s: float


class Background:
    """Performs tickets one after the other; between and during them it serves other ranks.

    Since one thread reads and writes all live items, no lock guards them and none is held while bytes are copied; the
    copies themselves release the interpreter's lock.
    """

    def __init__(
        self,
        store: LocalStore,
        transport: Transport,
        outputs: Outputs,
        *,
        representatives: int,
        generators: Generators,
        clock: StepClock,
    ) -> None:
        self._store = store
        self._transport = transport
        self._outputs = outputs
        self._representatives = representatives
        self._generators = generators
        self._clock = clock
        self._rank = store.rank
        self._queue: deque[Ticket[object]] = deque()
        self._newest_offer: Offer | None = None
        self._stopping = False
        self._ended = False
        self._lock = threading.Lock()
        self.draws = 0
        self.drawn = 0
        self.cpu_s = 0.0
        self._thread = threading.Thread(target=self._run, name="rehearsal-buffer", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], Result], *, after: Future[None] | None = None) -> Ticket[Result]:
        """Queue work for the background thread, to be done once `after` is; returns at once."""
        ticket = Ticket(work, after)
        with self._lock:
            if self._ended:
                raise RuntimeError("The buffer's background thread has ended.")
            self._queue.append(ticket)  # type: ignore[arg-type]
            self._transport.wake()
        if after is not None:
            after.add_done_callback(lambda _: self._wake())
        return ticket

    def _wake(self) -> None:
        with self._lock:
            if not self._ended:
                self._transport.wake()

    def submit_offer(self, offer: Offer) -> Ticket[DrawTiming]:
        """Queue an insertion and the draw that follows it."""
        self._newest_offer = offer
        return self.submit(lambda: self._populate_and_augment(offer), after=offer.arrival)

    def annotate(self, ids: Ints, states: Mapping[str, ByteRows]) -> int:
        """Rewrite states here and on other ranks; for the background thread."""
        homes = self._store.homes(ids)
        for rank in np.unique(homes).tolist():
            if rank in self._transport.sizes:
                self._transport.request_annotation(rank, *_part(ids, states, homes == rank))
        written = self._store.annotate(*_part(ids, states, homes == self._rank))
        return written + self._transport.collect().annotated

    def close(self) -> None:
        """End the thread once its current ticket is done; waiting tickets fail."""
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
        self._transport.pump(0 if self._stopping or self._next_is_ready else None)

    @property
    def _next_is_ready(self) -> bool:
        return bool(self._queue) and self._queue[0].ready

    def _end(self, cause: BaseException | None) -> None:
        with self._lock:
            self._ended = True
            waiting = list(self._queue)
            self._queue.clear()
        self._store.free.close()
        for ticket in waiting:
            ticket.fail(cause)

    def _populate_and_augment(self, offer: Offer) -> DrawTiming:
        started = time.perf_counter()
        wanted = offer is self._newest_offer
        # a full store stays full, so the shares of the draw are known now and the others serve while this rank inserts
        here = self._ask_others() if wanted and self._store.index.is_full else None
        asked = time.perf_counter()
        self._populate(offer)
        populated = time.perf_counter()
        if wanted:
            self._draw(self._ask_others() if here is None else here)
        populate_s = populated - asked
        timing = DrawTiming(populate_s=populate_s, augment_s=time.perf_counter() - started - populate_s)
        self._clock.add_background(timing.populate_s, timing.augment_s)
        return timing

    def _populate(self, offer: Offer) -> None:
        size_before = self._store.index.size
        self._store.insert(offer.rows, offer.candidates(), self._generators.policy)
        if self._store.index.size > size_before:
            self._transport.announce()

    def _draw(self, here: int) -> None:
        """Fill the next output; starts again with the ranks that remain if one was lost meanwhile."""
        while not self._completed(here) and not self._stopping:
            self._outputs.abandon_filling()
            here = self._ask_others()
        self._outputs.filling.finish()
        self.draws += 1
        self.drawn += self._outputs.filling.filled

    def _ask_others(self) -> int:
        """Plan a draw and ask every other rank for its part; returns how many items this rank's own part has."""
        sizes = {self._rank: self._store.index.size, **self._transport.sizes}
        plan = plan_draw(sizes, self._representatives, self._generators.draw)
        here = plan.pop(self._rank, 0)
        outputs = self._outputs.filling
        outputs.begin()
        outputs.filled = here
        for rank, count in plan.items():
            self._transport.request_items(rank, count=count, into=outputs, first=outputs.filled)
            outputs.filled += count
        return here

    def _completed(self, here: int) -> bool:
        """Draw this rank's own part and wait for the others; False if one of them delivered less than it was asked."""
        for _ in self._store.draw(here, self._outputs.filling, first=0, rng=self._generators.draw):
            pass
        self._outputs.filling.prepare()
        return self._transport.collect().complete


def _part(ids: Ints, states: Mapping[str, ByteRows], chosen: npt.NDArray[np.bool_]) -> tuple[Ints, dict[str, ByteRows]]:
    return ids[chosen], {name: values[chosen] for name, values in states.items()}
