"""How a draw is made: every item equally likely, or by score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import accumulate

import numpy as np

from ptychoflow.buffer.index import Ints
from ptychoflow.buffer.local_store import LocalStore
from ptychoflow.buffer.outputs import Outputs
from ptychoflow.buffer.sampling import plan_arrivals, plan_draw
from ptychoflow.buffer.transport.transport import Delivery, Transport

_NONE = np.zeros(0, np.int64)


class Draw(ABC):
    """Fills the set of outputs that is to be filled next; used by the background thread alone."""

    def __init__(
        self, store: LocalStore, transport: Transport, outputs: Outputs, *, items: int, rng: np.random.Generator
    ) -> None:
        self._store = store
        self._transport = transport
        self._outputs = outputs
        self._items = items
        self._rng = rng
        self._rank = store.rank

    @property
    @abstractmethod
    def precedes_insertion(self) -> bool:
        """Whether the other ranks may be asked before this rank inserts, so that they serve meanwhile."""

    @abstractmethod
    def begin(self) -> None:
        """Wait until the outputs may be written, and ask the other ranks as far as that is possible now."""

    @abstractmethod
    def complete(self) -> bool:
        """Write all items; False if a rank was lost meanwhile: the outputs must be abandoned and the draw repeated."""


class UniformDraw(Draw):
    """Every set of items over all ranks is equally likely."""

    _here = 0

    @property
    def precedes_insertion(self) -> bool:
        """See `Draw.precedes_insertion`: a full store stays full, so its share of the draw is known before."""
        return self._store.index.is_full

    def begin(self) -> None:
        """See `Draw.begin`: each rank's share is planned by the numbers of live items."""
        sizes = {self._rank: self._store.index.size, **self._transport.sizes}
        plan = plan_draw(sizes, self._items, self._rng)
        self._here = plan.pop(self._rank, 0)
        outputs = self._outputs.filling
        outputs.begin()
        outputs.filled = self._here
        for rank, count in plan.items():
            self._transport.request_items(rank, count=count, into=outputs, first=outputs.filled)
            outputs.filled += count

    def complete(self) -> bool:
        """See `Draw.complete`."""
        outputs = self._outputs.filling
        self._store.copy(self._store.choose(self._here, self._rng).positions, outputs, first=0)
        outputs.prepare()
        return self._transport.collect().complete


class ScoreDraw(Draw):
    """Successive sampling over all ranks: see `ScoreWeights`."""

    @property
    def precedes_insertion(self) -> bool:
        """See `Draw.precedes_insertion`: what is inserted changes this rank's share."""
        return False

    def begin(self) -> None:
        """See `Draw.begin`: whom to ask shows from round to round."""
        self._outputs.filling.begin()
        self._outputs.filling.filled = 0

    def complete(self) -> bool:
        """See `Draw.complete`: rounds of as many arrivals as items are missing; one if weights are much alike."""
        outputs = self._outputs.filling
        weights = {self._rank: self._store.share.weight, **self._transport.weights}
        delivered: dict[int, Ints] = {}
        while outputs.filled < self._items:
            for gone in weights.keys() - self._transport.weights.keys() - {self._rank}:
                del weights[gone]  # it answered the round before, and then left
            arrivals = plan_arrivals(weights, self._items - outputs.filled, self._rng)
            if not arrivals:
                break
            firsts = dict(zip(arrivals, accumulate(arrivals.values(), initial=outputs.filled), strict=False))
            deliveries = self._deliver(arrivals, firsts, delivered)
            if deliveries is None:
                return False
            for rank, (count, remaining) in deliveries.items():
                new = outputs.ids[firsts[rank] : firsts[rank] + count]
                delivered[rank] = np.concatenate([delivered.get(rank, _NONE), new])
                weights[rank] = remaining
            outputs.close_gaps([(firsts[rank], count) for rank, (count, _) in deliveries.items()])
        outputs.prepare()
        return True

    def _deliver(
        self, arrivals: dict[int, int], firsts: dict[int, int], delivered: dict[int, Ints]
    ) -> dict[int, Delivery] | None:
        """One round; None if a rank was lost."""
        outputs = self._outputs.filling
        for rank, count in arrivals.items():
            if rank != self._rank:
                self._transport.request_items(
                    rank, count=count, into=outputs, first=firsts[rank], excluded=delivered.get(rank)
                )
        deliveries = {}
        if self._rank in arrivals:
            chosen = self._store.choose(arrivals[self._rank], self._rng, excluded=delivered.get(self._rank))
            self._store.copy(chosen.positions, outputs, first=firsts[self._rank])
            deliveries[self._rank] = Delivery(len(chosen.positions), chosen.remaining)
        collected = self._transport.collect()
        return deliveries | collected.deliveries if collected.complete else None
