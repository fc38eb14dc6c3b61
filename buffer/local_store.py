"""This rank's part of the buffer: rows of items, the index of live ones, and the policy that decides between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ptychoflow.buffer.free_rows import FreeRows
from ptychoflow.buffer.index import Candidate, Index, Ints
from ptychoflow.buffer.item_update import ItemUpdate
from ptychoflow.buffer.memory import ByteRows, Rows, allocate
from ptychoflow.buffer.outputs import OutputSet
from ptychoflow.buffer.policies import APPEND, REJECT, Policy
from ptychoflow.buffer.sampling import Choice, ScoreWeights, draw_positions
from ptychoflow.buffer.schema import Schema

RANK_BITS = 20
"""An item's id is its number on the rank that took it, followed by that rank in this many bits."""


@dataclass
class StoreCounters:
    """What became of the candidates since the buffer was made."""

    candidates: int = 0
    accepted: int = 0
    replaced: int = 0
    updated: int = 0
    bytes_copied: int = 0


class Share(NamedTuple):
    """What other ranks must know of a store to plan their draws."""

    size: int
    weight: float
    """Of all live items; 0 where draws are uniform."""


class LocalStore:
    """Used by the background thread alone, but for the rows that `free` has handed out: those belong to their offer."""

    def __init__(
        self,
        schema: Schema,
        *,
        quotas: Ints,
        spare_rows: int,
        policy: Policy,
        rank: int,
        pinned: bool,
        score_exponent: float | None = None,
    ) -> None:
        """`score_exponent`: items are drawn by score ** that; None if they are drawn uniformly."""
        self.schema = schema
        self.policy = policy
        self.index = Index(quotas)
        self.weights = None if score_exponent is None else ScoreWeights(self.index, score_exponent)
        count = self.index.capacity + spare_rows
        self.rows = Rows(schema, count, allocate(Rows.nbytes(schema, count), pinned=pinned))
        self.free = FreeRows(range(self.rows.count))
        self.counters = StoreCounters()
        self.next_number = 0
        self.rank = rank
        self.moved_ids = np.zeros(0, np.int64)
        """Ids of items that a restored checkpoint put on another rank than the one that took them, ascending."""
        self.moved_homes = np.zeros(0, np.int64)
        """Where those live."""

    def insert(self, rows: Sequence[int], candidates: Sequence[Candidate], rng: np.random.Generator) -> None:
        """Let the policy place candidates whose tensors already stand in `rows`."""
        unused = [self._place(row, candidate, rng) for row, candidate in zip(rows, candidates, strict=True)]
        self.counters.candidates += len(rows)
        self.expire_weights()
        self.free.release(row for row in unused if row is not None)

    def _place(self, row: int, candidate: Candidate, rng: np.random.Generator) -> int | None:
        """Returns the row that is free afterwards, if any."""
        self.index.seen[candidate.label] += 1
        self.policy.observe(candidate)
        position = self.policy.place(candidate, self.index, rng)
        if position == REJECT:
            return row
        self.counters.accepted += 1
        if position == APPEND:
            self.index.append(candidate, item_id=self._new_id(), row=row)
            return None
        self.counters.replaced += 1
        return self.index.replace(position, candidate, item_id=self._new_id(), row=row)

    def _new_id(self) -> int:
        self.next_number += 1
        return (self.next_number - 1) << RANK_BITS | self.rank

    def homes(self, ids: Ints) -> Ints:
        """The rank on which each item lives, or lived: the one that took it, unless a restored checkpoint moved it."""
        homes = ids & ((1 << RANK_BITS) - 1)
        if len(self.moved_ids):
            places = np.minimum(np.searchsorted(self.moved_ids, ids), len(self.moved_ids) - 1)
            moved = self.moved_ids[places] == ids
            homes[moved] = self.moved_homes[places[moved]]
        return homes

    @property
    def share(self) -> Share:
        """What other ranks must know to plan their draws."""
        return Share(self.index.size, 0.0 if self.weights is None else self.weights.total)

    def expire_weights(self) -> None:
        """Items or scores have changed."""
        if self.weights is not None:
            self.weights.expire()

    def choose(self, count: int, rng: np.random.Generator, *, excluded: Ints | None = None) -> Choice:
        """Distinct live items of a draw: `count` uniformly, or those of so many arrivals by score.

        `excluded`: ids of items that the same draw by score has got already.
        """
        if self.weights is None:
            return Choice(draw_positions(self.index.size, min(count, self.index.size), rng))
        known = [] if excluded is None else [self.index.find(item_id) for item_id in excluded.tolist()]
        positions = np.array([position for position in known if position is not None], np.int64)
        return self.weights.choose(count, rng, excluded=positions)

    def copy(self, positions: Ints, into: OutputSet, *, first: int) -> None:
        """Copy the items at `positions` to rows `first` and on."""
        for _ in self.copy_by_field(positions, into, first=first):
            pass

    def copy_by_field(self, positions: Ints, into: OutputSet, *, first: int) -> Iterator[ByteRows]:
        """Copy the items at `positions` to rows `first` and on: ids and labels now, the fields one after the other.

        The iterator must be exhausted before the store changes. It yields each field's copies.
        """
        count = len(positions)
        into.ids[first : first + count] = self.index.ids[positions]
        into.labels[first : first + count] = self.index.labels[positions]
        self.counters.bytes_copied += count * self.schema.nbytes
        return self.rows.gather(self.index.rows[positions], into.rows, first=first)

    def update(self, update: ItemUpdate) -> int:
        """Rewrite those items that still live; returns how many that are."""
        written = 0
        for item, item_id in enumerate(update.ids.tolist()):
            position = self.index.find(item_id)
            if position is None:
                continue
            row = int(self.index.rows[position])
            for name, values in update.fields.items():
                self.rows.bytes[name][row] = values[item]
            if update.scores is not None:
                self.index.scores[position] = update.scores[item]
            written += 1
        self.counters.updated += written
        self.expire_weights()
        return written
