"""Reservoir sampling per class: the stored items are a uniform sample of everything offered."""

from __future__ import annotations

import numpy as np

from ptychoflow.buffer.index import Candidate, Index
from ptychoflow.buffer.policies.policy import APPEND, REJECT, Policy


class ReservoirPolicy(Policy):
    """Vitter, "Random sampling with a reservoir" (1985), algorithm R, once per class and rank."""

    def place(self, candidate: Candidate, index: Index, rng: np.random.Generator) -> int:
        """See `Policy.place`."""
        if index.has_room(candidate.label):
            return APPEND
        members = index.positions(candidate.label)
        drawn = int(rng.integers(index.seen[candidate.label]))
        return members[drawn] if drawn < len(members) else REJECT
