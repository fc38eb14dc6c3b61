"""Keeps the items whose mean feature is nearest to the mean of everything seen of their class."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ptychoflow.buffer.index import Candidate, Index
from ptychoflow.buffer.policies.policy import APPEND, REJECT, Policy


class HerdingPolicy(Policy):
    """The criterion of iCaRL (Rebuffi et al. 2017, algorithm 4) for a stream.

    When a class is full, of its items and the candidate that one leaves without which the mean of the others is nearest
    to the running mean of all features seen of the class.
    """

    needs_features = True

    def __init__(self) -> None:
        self._sums: dict[int, npt.NDArray[np.float64]] = {}
        self._counts: dict[int, float] = {}

    def observe(self, candidate: Candidate) -> None:
        """See `Policy.observe`."""
        features = _features(candidate)
        if not np.isfinite(features).all():
            return
        self._sums[candidate.label] = self._sums.get(candidate.label, 0.0) + features
        self._counts[candidate.label] = self._counts.get(candidate.label, 0) + 1

    def place(self, candidate: Candidate, index: Index, rng: np.random.Generator) -> int:
        """See `Policy.place`; features that are not finite, which `offer` cannot see on a GPU, are not stored."""
        if not np.isfinite(_features(candidate)).all():
            return REJECT
        if index.has_room(candidate.label) or index.features is None:
            return APPEND
        members = index.positions(candidate.label)
        features = np.vstack([index.features[members], _features(candidate)])
        target = self._sums[candidate.label] / self._counts[candidate.label]
        means_without = (features.sum(axis=0) - features) / len(members)
        leaves = int(np.square(means_without - target).sum(axis=1).argmin())
        return REJECT if leaves == len(members) else members[leaves]

    def state_dict(self) -> dict[str, object]:
        """See `Policy.state_dict`."""
        return {
            str(label): {"sum": torch.from_numpy(total.copy()), "count": self._counts[label]}
            for label, total in self._sums.items()
        }

    def load_state_dict(self, states: list[dict[str, Any]], *, exact: bool) -> None:
        """See `Policy.load_state_dict`: the means of several ranks join into one."""
        for state in states:
            for key, known in state.items():
                label = int(key)
                self._sums[label] = self._sums.get(label, 0.0) + known["sum"].numpy()
                self._counts[label] = self._counts.get(label, 0) + float(known["count"])

    def take_share(self, part: float) -> None:
        """See `Policy.take_share`: the means stay, and weigh as much beside new features as the ranks saw of them."""
        for label in self._sums:
            self._sums[label] *= part
            self._counts[label] *= part


def _features(candidate: Candidate) -> npt.NDArray[np.float64]:
    return np.asarray(candidate.features, np.float64)
