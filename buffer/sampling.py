"""Who delivers how many items of a draw, and which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ptychoflow.buffer.index import Index, Ints

_LARGEST_WEIGHT = 1e280
_NEARLY_ALL = 1e-3


class Choice(NamedTuple):
    """What one rank delivers of a draw."""

    positions: Ints
    """Distinct positions of its index."""
    remaining: float = 0.0
    """Weight of its items that were not delivered for this draw; 0 in uniform draws, which need no such thing."""


def plan_draw(sizes: Mapping[int, int], wanted: int, rng: np.random.Generator) -> dict[int, int]:
    """How many items each rank delivers so that every set of `wanted` items over all ranks is equally likely.

    `sizes` are the ranks' numbers of live items. Drawn from the multivariate hypergeometric distribution, which is the
    law of the per-rank counts of a uniform draw without replacement, by its marginals: each rank's count is
    hypergeometric given those before. Ranks that deliver nothing are left out. Fewer than `wanted` items are planned
    only when fewer exist.
    """
    plan: dict[int, int] = {}
    remaining = sum(sizes.values())
    wanted = min(wanted, remaining)
    for rank, size in sizes.items():
        remaining -= size
        count = int(rng.hypergeometric(size, remaining, wanted)) if remaining and size and wanted else min(size, wanted)
        wanted -= count
        if count:
            plan[rank] = count
    return plan


def draw_positions(size: int, count: int, rng: np.random.Generator) -> Ints:
    """`count` distinct positions below `size`, every set of positions equally likely."""
    return rng.choice(size, count, replace=False, shuffle=False)


def plan_arrivals(weights: Mapping[int, float], wanted: int, rng: np.random.Generator) -> dict[int, int]:
    """How many of `wanted` arrivals fall to each rank, an arrival with a probability proportional to its weight.

    Ranks to which none falls are left out; all are if nothing has any weight.
    """
    total = sum(weights.values())
    if total <= 0:
        return {}
    counts = rng.multinomial(wanted, np.array(list(weights.values())) / total)
    return {rank: count for rank, count in zip(weights, counts.tolist(), strict=True) if count}


class ScoreWeights:
    """The weights by which this rank's live items are drawn: score ** exponent, 0 for scores that are not positive.

    Successive sampling draws item after item, each with a probability proportional to its weight among those not drawn
    yet. Let every item arrive again and again, at random times and at a rate that is its weight: the order of first
    arrivals is that of successive sampling. Of arrivals, the rank of each is drawn independently (`plan_arrivals`), and
    then the item within its rank; what arrives a second time is nothing new, so as many arrivals as items are missing
    never give too many, and are repeated among the items that are left until none is missing.
    """

    def __init__(self, index: Index, exponent: float) -> None:
        self._index = index
        self._exponent = exponent
        self._weights = np.zeros(0)
        self._sums = np.zeros(0)
        self._current = False

    def expire(self) -> None:
        """Items or scores have changed."""
        self._current = False

    @property
    def total(self) -> float:
        """The weight of all live items."""
        self._refresh()
        return float(self._sums[-1]) if len(self._sums) else 0.0

    def choose(self, arrivals: int, rng: np.random.Generator, *, excluded: Ints) -> Choice:
        """The distinct items of so many arrivals, none of which is at a position in `excluded`."""
        self._refresh()
        weights, sums = self._weights, self._sums
        if len(excluded):
            weights = weights.copy()
            weights[excluded] = 0.0
            sums = np.cumsum(weights)
        total = float(sums[-1]) if len(sums) else 0.0
        if total <= 0:
            return Choice(np.zeros(0, np.int64))
        found = np.searchsorted(sums, rng.random(arrivals) * total, side="right")
        positions: Ints = np.unique(np.minimum(found, np.searchsorted(sums, total)))
        remaining = total - float(weights[positions].sum())
        if remaining < _NEARLY_ALL * total:  # what is left of a difference of sums may be rounding alone
            left = weights.copy()
            left[positions] = 0.0
            remaining = float(left.sum())
        return Choice(positions, remaining)

    def _refresh(self) -> None:
        if not self._current:
            scores: npt.NDArray[np.float64] = self._index.scores[: self._index.size]
            with np.errstate(over="ignore"):
                weights = np.where(scores > 0, scores, 0.0) ** self._exponent
            self._weights = np.minimum(weights, _LARGEST_WEIGHT)
            self._sums = np.cumsum(self._weights)
            self._current = True
