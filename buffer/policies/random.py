"""The thesis's policy: append while the class has room, else replace a random item of the same class."""

from __future__ import annotations

import numpy as np

from ptychoflow.buffer.index import Candidate, Index
from ptychoflow.buffer.policies.policy import APPEND, Policy


class RandomPolicy(Policy):
    """Bouvier, thesis 2024, algorithm 3. Recent items are the likelier: survival decays geometrically with age."""

    def place(self, candidate: Candidate, index: Index, rng: np.random.Generator) -> int:
        """See `Policy.place`."""
        if index.has_room(candidate.label):
            return APPEND
        members = index.positions(candidate.label)
        return members[int(rng.integers(len(members)))]
