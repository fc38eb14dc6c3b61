"""Which items of a stream survive: every policy against its theory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from ptychoflow.buffer import APPEND, REJECT, Candidate, Index, Policy
from ptychoflow.buffer.capacity import class_quotas
from ptychoflow.buffer.names import PolicyName
from ptychoflow.buffer.policies import make_policy


def survivors(policy: Policy, stream: Sequence[Candidate], *, capacity: int, classes: int, seed: int) -> Index:
    """The index after the whole stream; an item's id is its place in the stream."""
    index = Index(class_quotas(capacity, classes=classes, rank=0, world_size=1))
    rng = np.random.default_rng(seed)
    for number, candidate in enumerate(stream):
        index.seen[candidate.label] += 1
        policy.observe(candidate)
        position = policy.place(candidate, index, rng)
        if position == APPEND:
            index.append(candidate, item_id=number, row=number)
        elif position != REJECT:
            index.replace(position, candidate, item_id=number, row=number)
    return index


def one_survivor_each(policy: PolicyName, *, capacity: int, length: int, trials: int) -> np.ndarray:
    """A random survivor of each of many independent streams: independent samples of the survival distribution."""
    rng = np.random.default_rng(0)
    stream = [Candidate(0)] * length
    return np.array(
        [
            rng.choice(survivors(make_policy(policy), stream, capacity=capacity, classes=1, seed=trial).ids)
            for trial in range(trials)
        ]
    )


def p_value(observed: np.ndarray, probabilities: np.ndarray) -> float:
    counts = np.bincount(observed, minlength=len(probabilities))
    return float(stats.chisquare(counts, probabilities / probabilities.sum() * len(observed)).pvalue)


CAPACITY, LENGTH, TRIALS = 8, 40, 4000
GEOMETRIC = (1 - 1 / CAPACITY) ** np.minimum(LENGTH - 1 - np.arange(LENGTH), LENGTH - CAPACITY)
UNIFORM = np.ones(LENGTH)


@pytest.mark.parametrize(
    ("policy", "theory", "other"),
    [("random", GEOMETRIC, UNIFORM), ("reservoir", UNIFORM, GEOMETRIC), ("balanced_reservoir", UNIFORM, GEOMETRIC)],
)
def test_survival_follows_the_theory(policy: PolicyName, theory: np.ndarray, other: np.ndarray) -> None:
    observed = one_survivor_each(policy, capacity=CAPACITY, length=LENGTH, trials=TRIALS)
    assert p_value(observed, theory) > 0.001
    assert p_value(observed, other) < 1e-6


def test_fifo_keeps_the_newest_of_every_class() -> None:
    stream = [Candidate(number % 3 % 2) for number in range(100)]
    index = survivors(make_policy("fifo"), stream, capacity=11, classes=2, seed=0)
    for label, quota in ((0, 6), (1, 5)):
        of_class = [number for number, candidate in enumerate(stream) if candidate.label == label]
        assert sorted(index.ids[index.positions(label)].tolist()) == of_class[-quota:]


@pytest.mark.parametrize("policy", ["random", "reservoir"])
def test_new_classes_do_not_push_out_old_ones(policy: PolicyName) -> None:
    stream = [Candidate(0)] * 50 + [Candidate(1)] * 500
    index = survivors(make_policy(policy), stream, capacity=20, classes=4, seed=0)
    assert index.sizes() == {0: 5, 1: 5}


def test_balanced_reservoir_evens_out_classes_it_was_not_told_of() -> None:
    rng = np.random.default_rng(0)
    stream = [Candidate(int(label)) for label in rng.choice([3, 7, 90], 5000, p=[0.8, 0.15, 0.05])]
    index = survivors(make_policy("balanced_reservoir"), stream, capacity=60, classes=1, seed=0)
    assert index.size == 60
    assert set(index.sizes()) == {3, 7, 90}
    assert abs(index.sizes()[3] - index.sizes()[7]) <= 1
    assert index.sizes()[90] >= 3 * 0.05 * 60  # a plain reservoir would hold 5 %


def test_loss_aware_gives_up_easy_items_in_proportion() -> None:
    scores = np.array([1.0, 2.0, 4.0, 8.0])
    index = survivors(make_policy("loss_aware"), [Candidate(0, s) for s in scores], capacity=4, classes=1, seed=0)
    index.seen[0] = 8
    rng = np.random.default_rng(1)
    placed = np.array([make_policy("loss_aware").place(Candidate(0, 1.0), index, rng) for _ in range(20000)])
    assert stats.binomtest(int((placed == REJECT).sum()), len(placed), 0.5).pvalue > 0.001
    assert p_value(placed[placed != REJECT], 1 / scores) > 0.001


@pytest.mark.parametrize(
    ("scores", "count_as"),
    [
        ([1.0, np.inf, 4.0, 8.0], [1.0, 8.0, 4.0, 8.0]),
        ([1.0, 2.0, np.nan, 2.0], [1.0, 2.0, 1.25e-3, 2.0]),
        ([np.nan, -np.inf, 0.0, np.inf], [1.0, 1.0, 1.0, 1.0]),
        ([1e308, 1e308, 1e308, 5e307], [2.0, 2.0, 2.0, 1.0]),
        ([5e-324, 5e-324, 5e-324, 1e-323], [1.0, 1.0, 1.0, 2.0]),
    ],
)
def test_loss_aware_bears_any_score(scores: list[float], count_as: list[float]) -> None:
    """Scores that come from a GPU are not looked at when they are offered."""
    index = survivors(make_policy("loss_aware"), [Candidate(0, s) for s in scores], capacity=4, classes=1, seed=0)
    index.seen[0] = 4
    rng = np.random.default_rng(1)
    placed = np.array([make_policy("loss_aware").place(Candidate(0, np.inf), index, rng) for _ in range(5000)])
    assert p_value(placed, 1 / np.array(count_as)) > 0.001


def test_herding_follows_the_mean_of_the_stream() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(600, 5)).astype(np.float32) + np.linspace(0, 3, 600, dtype=np.float32)[:, None]
    stream = [Candidate(0, 0.0, row) for row in features]
    distances = {}
    for policy in ("herding", "random", "reservoir"):
        index = survivors(make_policy(policy), stream, capacity=12, classes=1, seed=1)
        assert index.features is not None
        distances[policy] = np.linalg.norm(index.features.mean(axis=0) - features.mean(axis=0))
    assert distances["herding"] < 0.2 * min(distances["random"], distances["reservoir"])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_herding_goes_on_after_a_feature_that_is_not_finite(value: float) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 2)).astype(np.float32)
    whole = [Candidate(0, 0.0, row) for row in features]
    broken = Candidate(0, 0.0, np.array([0.5, value], np.float32))
    expected = survivors(make_policy("herding"), whole, capacity=6, classes=1, seed=0)
    index = survivors(make_policy("herding"), [broken, *whole[:30], broken, *whole[30:]], capacity=6, classes=1, seed=0)
    assert index.features is not None
    assert expected.features is not None
    assert np.array_equal(index.features, expected.features)


def test_herding_removes_the_one_that_a_full_search_would() -> None:
    rng = np.random.default_rng(3)
    features = rng.normal(size=(30, 4)).astype(np.float32)
    policy = make_policy("herding")
    index = survivors(policy, [Candidate(0, 0.0, row) for row in features[:-1]], capacity=6, classes=1, seed=0)
    candidate = Candidate(0, 0.0, features[-1])
    policy.observe(candidate)
    placed = policy.place(candidate, index, rng)
    assert index.features is not None
    pool = np.vstack([index.features, features[-1]])
    errors = [np.linalg.norm(np.delete(pool, row, axis=0).mean(axis=0) - features.mean(axis=0)) for row in range(7)]
    assert placed == (REJECT if np.argmin(errors) == 6 else np.argmin(errors))


def test_a_policy_of_ones_own_decides() -> None:
    class KeepEven(Policy):
        open_classes = True

        def place(self, candidate: Candidate, index: Index, rng: np.random.Generator) -> int:
            if candidate.label % 2:
                return REJECT
            return APPEND if index.size < index.capacity else int(index.labels.argmin())

    index = survivors(KeepEven(), [Candidate(label) for label in range(40)], capacity=5, classes=1, seed=0)
    assert sorted(index.labels.tolist()) == [30, 32, 34, 36, 38]
    assert index.sizes() == dict.fromkeys([30, 32, 34, 36, 38], 1)


@pytest.mark.parametrize(("capacity", "classes", "ranks"), [(10, 3, 1), (11, 3, 4), (1000, 7, 8), (64, 64, 1)])
def test_quotas_use_the_whole_capacity(capacity: int, classes: int, ranks: int) -> None:
    quotas = np.stack([class_quotas(capacity, classes=classes, rank=r, world_size=ranks) for r in range(ranks)])
    assert quotas.sum() == capacity
    assert np.ptp(quotas.sum(axis=0)) <= 1
    assert np.ptp(quotas.sum(axis=1)) <= 1
    assert np.ptp(quotas) <= 1
