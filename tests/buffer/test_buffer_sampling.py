"""Plans of draws: exact distributions."""

from __future__ import annotations

from collections import Counter

import numpy as np
from scipy import stats

from ptychoflow.buffer.sampling import draw_positions, plan_draw


def test_counts_per_rank_are_hypergeometric() -> None:
    rng = np.random.default_rng(0)
    drawn = [plan_draw({0: 5, 1: 15}, 6, rng).get(0, 0) for _ in range(20000)]
    theory = stats.hypergeom(20, 5, 6).pmf(np.arange(6))
    assert stats.chisquare(np.bincount(drawn, minlength=6), theory * len(drawn)).pvalue > 0.001


def test_empty_ranks_are_never_asked_and_a_draw_is_never_short() -> None:
    rng = np.random.default_rng(0)
    for _ in range(1000):
        plan = plan_draw({0: 0, 1: 3, 2: 0, 3: 4}, 5, rng)
        assert set(plan) <= {1, 3}
        assert sum(plan.values()) == 5
    assert plan_draw({0: 2, 1: 1}, 5, rng) == {0: 2, 1: 1}
    assert plan_draw({0: 0}, 5, rng) == {}


def test_every_set_of_positions_is_equally_likely() -> None:
    rng = np.random.default_rng(0)
    sets = Counter(frozenset(draw_positions(6, 3, rng).tolist()) for _ in range(20000))
    assert len(sets) == 20
    assert stats.chisquare(list(sets.values())).pvalue > 0.001
