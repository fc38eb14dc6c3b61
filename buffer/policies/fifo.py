"""A ring per class: the newest items stay."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from ptychoflow.buffer.index import Candidate, Index
from ptychoflow.buffer.policies.policy import APPEND, Policy


class FifoPolicy(Policy):
    """Replaces the oldest item of the class."""

    def __init__(self) -> None:
        self._replaced: defaultdict[int, int] = defaultdict(int)

    def place(self, candidate: Candidate, index: Index, rng: np.random.Generator) -> int:
        """See `Policy.place`."""
        if index.has_room(candidate.label):
            return APPEND
        members = index.positions(candidate.label)
        oldest = members[self._replaced[candidate.label] % len(members)]
        self._replaced[candidate.label] += 1
        return oldest

    def state_dict(self) -> dict[str, object]:
        """See `Policy.state_dict`."""
        return {str(label): count for label, count in self._replaced.items()}

    def load_state_dict(self, states: list[dict[str, object]], *, exact: bool) -> None:
        """See `Policy.load_state_dict`: items dealt anew come oldest first, so every ring starts at its first item."""
        if exact:
            self._replaced.update({int(label): int(str(count)) for label, count in states[0].items()})
