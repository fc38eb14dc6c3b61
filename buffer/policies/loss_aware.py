"""A reservoir that gives up items the model already handles well."""

from __future__ import annotations

import numpy as np

from ptychoflow.buffer.index import Candidate, Index
from ptychoflow.buffer.policies.policy import APPEND, REJECT, Policy


class LossAwarePolicy(Policy):
    """After loss-aware reservoir sampling (Buzzega et al. 2020), per class and with a weight that is simple to state.

    A candidate enters as in a reservoir of its class. The item it replaces is drawn with a probability inversely
    proportional to its score, so one with half the loss leaves twice as likely. Scores below a thousandth of the
    class's mean count as that thousandth, infinite ones, which `offer` cannot see on a GPU, as the largest finite one,
    and those that are no number as 0. A score stays as it was offered until `update_items` rewrites it.
    """

    needs_scores = True

    def place(self, candidate: Candidate, index: Index, rng: np.random.Generator) -> int:
        """See `Policy.place`."""
        if index.has_room(candidate.label):
            return APPEND
        members = index.positions(candidate.label)
        if rng.integers(index.seen[candidate.label]) >= len(members):
            return REJECT
        scores = np.fmax(index.scores[members], 0.0)
        largest = float(scores.max(where=np.isfinite(scores), initial=0.0))
        if largest > 0:
            relative = np.minimum(scores, largest) / largest
            weights = 1.0 / np.maximum(relative, relative.mean() * 1e-3)
        else:
            weights = np.ones(len(members))
        return int(rng.choice(members, p=weights / weights.sum()))
