"""Which items live on this rank: where each is stored, its id, class and score. Policies decide by it."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


class Candidate(NamedTuple):
    """What is known of an offered item, apart from its tensors."""

    label: int
    """Its class."""
    score: float = 0.0
    """What `offer` was given for it; 0 where nothing was."""
    features: npt.NDArray[np.float32] | None = None
    """(d,), or None where nothing was given."""


class Index:
    """Live items at dense positions 0 .. size - 1; a position keeps its item until the item is replaced.

    The number of live items never shrinks. Used by one thread only: a policy reads it within `place`.

    Attributes:
        quotas: Room per class, int64 (classes,).
        capacity: Room in all.
        size: Number of live items; only so many elements of the arrays below mean anything.
        seen: Candidates offered so far, per class: the length of each class's stream on this rank.
        rows: Where each item is stored, int64 (capacity,).
        ids: Id of each item, int64 (capacity,).
        labels: Class of each item, int64 (capacity,).
        scores: What each item was offered or updated with, float64 (capacity,).
        places: Place of each position in the list of its class, int64 (capacity,).
        features: float32 (capacity, d), or None while no item had any.

    Args:
        quotas: Room per class, int64 (classes,).
    """

    def __init__(self, quotas: Ints) -> None:
        self.quotas = quotas
        self.capacity = int(quotas.sum())
        self.size = 0
        self.seen: defaultdict[int, int] = defaultdict(int)
        self.rows = np.zeros(self.capacity, np.int64)
        self.ids = np.zeros(self.capacity, np.int64)
        self.labels = np.zeros(self.capacity, np.int64)
        self.scores = np.zeros(self.capacity, np.float64)
        self.places = np.zeros(self.capacity, np.int64)
        self.features: npt.NDArray[np.float32] | None = None
        self._members: defaultdict[int, list[int]] = defaultdict(list)
        self._position_of: dict[int, int] = {}

    def positions(self, label: int) -> list[int]:
        """Positions of the live items of a class, in the order in which they were taken (replaced ones in place)."""
        return self._members[label]

    def sizes(self) -> dict[int, int]:
        """Live items per class, for classes that have any; in the order of the classes, also after a restore."""
        return {label: len(members) for label, members in sorted(self._members.items()) if members}

    @property
    def is_full(self) -> bool:
        """Whether no room is left, so that the number of live items stays as it is."""
        return self.size == self.capacity

    def has_room(self, label: int) -> bool:
        """Whether the class has not yet filled its quota."""
        return len(self._members[label]) < int(self.quotas[label])

    def find(self, item_id: int) -> int | None:
        """Position of a live item, or None once it was replaced."""
        return self._position_of.get(item_id)

    def append(self, candidate: Candidate, *, item_id: int, row: int) -> None:
        """Add a live item."""
        self.size += 1
        self._set(self.size - 1, candidate, item_id=item_id, row=row)

    def replace(self, position: int, candidate: Candidate, *, item_id: int, row: int) -> int:
        """Put a new item in place of the one at `position`; returns the row that the old one occupied."""
        old_row = int(self.rows[position])
        del self._position_of[int(self.ids[position])]
        if self.labels[position] == candidate.label:
            self._fill(position, candidate, item_id=item_id, row=row)
        else:
            self._leave_class(position)
            self._set(position, candidate, item_id=item_id, row=row)
        return old_row

    def live_features(self) -> npt.NDArray[np.float32]:
        """A copy of the features of all live items, (size, d); d is 0 where none were given."""
        return np.zeros((self.size, 0), np.float32) if self.features is None else self.features[: self.size].copy()

    def load(
        self,
        *,
        rows: Ints,
        ids: Ints,
        labels: Ints,
        scores: npt.NDArray[np.float64],
        features: npt.NDArray[np.float32],
        places: Ints,
        keep_places: bool,
    ) -> None:
        """Fill an empty index; without `keep_places` the classes list their items in the order given."""
        for position, (row, item_id, label) in enumerate(
            zip(rows.tolist(), ids.tolist(), labels.tolist(), strict=True)
        ):
            known = features[position] if features.shape[1] else None
            self.append(Candidate(label, float(scores[position]), known), item_id=item_id, row=row)
        if keep_places:
            self.places[: self.size] = places
            for label in np.unique(labels).tolist():
                members = np.flatnonzero(labels == label)
                self._members[label] = members[np.argsort(places[members])].tolist()

    def _set(self, position: int, candidate: Candidate, *, item_id: int, row: int) -> None:
        members = self._members[candidate.label]
        self.places[position] = len(members)
        members.append(position)
        self._fill(position, candidate, item_id=item_id, row=row)

    def _fill(self, position: int, candidate: Candidate, *, item_id: int, row: int) -> None:
        self.rows[position] = row
        self.ids[position] = item_id
        self.labels[position] = candidate.label
        self.scores[position] = candidate.score
        self._position_of[item_id] = position
        if candidate.features is not None:
            if self.features is None:
                self.features = np.zeros((self.capacity, len(candidate.features)), np.float32)
            self.features[position] = candidate.features

    def _leave_class(self, position: int) -> None:
        members = self._members[int(self.labels[position])]
        last = members.pop()
        if last != position:
            place = int(self.places[position])
            members[place] = last
            self.places[last] = place
