"""A reservoir that evens out the classes without knowing them beforehand."""

from __future__ import annotations

import numpy as np

from ptychoflow.buffer.index import Candidate, Index
from ptychoflow.buffer.policies.policy import APPEND, REJECT, Policy


class BalancedReservoirPolicy(Policy):
    """Buzzega et al., "Rethinking experience replay: a bag of tricks" (2020), balanced reservoir sampling.

    A candidate enters as in a reservoir of the whole stream, in place of a random item of the largest class.
    """

    open_classes = True

    def place(self, candidate: Candidate, index: Index, rng: np.random.Generator) -> int:
        """See `Policy.place`."""
        if index.size < index.capacity:
            return APPEND
        if rng.integers(sum(index.seen.values())) >= index.size:
            return REJECT
        sizes = index.sizes()
        largest = max(sizes.values())
        members = index.positions(rng.choice([label for label, size in sizes.items() if size == largest]).item())
        return members[int(rng.integers(len(members)))]
