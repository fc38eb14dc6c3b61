"""Draws by score are successive sampling over all ranks: exact distributions, and what updates of scores change."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from support import wait_until
from torch import distributed as dist

from ptychoflow.buffer import APPEND, Candidate, Field, Index, Policy, RehearsalBuffer, Schema
from ptychoflow.buffer.names import TransportName
from ptychoflow.buffer.sampling import ScoreWeights, plan_arrivals

RunRanks = Callable[..., list[Any]]
SCHEMA = Schema(number=Field((), "int64"), image=Field((3, 3)))
EXPONENT = 1.5


def items(numbers: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"number": numbers, "image": numbers.view(-1, 1, 1).expand(-1, 3, 3).float()}


def make(per_draw: int, *, transport: TransportName = "auto", **settings: Any) -> RehearsalBuffer:
    defaults = {"capacity": 330 * (dist.get_world_size() if dist.is_initialized() else 1), "candidates": 330}
    return RehearsalBuffer(
        SCHEMA,
        representatives=per_draw,
        draw="score",
        score_exponent=EXPONENT,
        transport=transport,
        timeout_s=20.0,
        **(defaults | settings),
    )


def fill(buffer: RehearsalBuffer, scores: Sequence[Sequence[float]], rank: int) -> None:
    """Store items that are numbered over all ranks; returns once every rank knows what every rank has."""
    first = sum(map(len, scores[:rank]))
    numbers = torch.arange(first, first + len(scores[rank]))
    buffer.offer(items(numbers), scores=torch.tensor(scores[rank], dtype=torch.float64))
    know(buffer, scores)
    buffer.take()  # drawn before all was known
    buffer.offer(None)


def know(buffer: RehearsalBuffer, scores: Sequence[Sequence[float]]) -> None:
    """Wait until this rank has heard all weights; then for the others."""
    weights = {rank: sum(score**EXPONENT for score in own) for rank, own in enumerate(scores)}
    heard = buffer._transport.weights
    wait_until(lambda: buffer.stats().size_per_rank == {rank: len(own) for rank, own in enumerate(scores)})
    wait_until(lambda: all(math.isclose(heard[rank], weights[rank], abs_tol=1e-9) for rank in heard))
    if dist.is_initialized():
        dist.barrier()


def draw_sets(
    rank: int, scores: Sequence[Sequence[float]], per_draw: int, draws: int, transport: TransportName
) -> list[tuple[int, ...]]:
    sets = []
    with make(per_draw, transport=transport) as buffer:
        fill(buffer, scores, rank)
        for _ in range(draws):
            drawn = buffer.update(None)
            assert (drawn["image"] == drawn["number"].view(-1, 1, 1)).all()
            sets.append(tuple(sorted(drawn["number"].tolist())))
        if dist.is_initialized():
            dist.barrier()
    return sets


def probabilities_of_sets(weights: np.ndarray, per_draw: int) -> dict[tuple[int, ...], float]:
    """By enumeration of all orders in which items may be drawn."""
    found: Counter[tuple[int, ...]] = Counter()
    for order in itertools.permutations(range(len(weights)), per_draw):
        left, probability = float(weights.sum()), 1.0
        for item in order:
            probability *= weights[item] / left
            left -= weights[item]
        found[tuple(sorted(order))] += probability  # type: ignore[assignment]
    return dict(found)


def p_value(sets: Sequence[tuple[int, ...]], probabilities: dict[tuple[int, ...], float]) -> float:
    """Chi-square over sets; those expected fewer than five times count as one."""
    observed = Counter(sets)
    assert set(observed) <= set(probabilities)
    expected = {one: probability * len(sets) for one, probability in probabilities.items()}
    often = [one for one in expected if expected[one] >= 5]
    seldom = [sum(table[one] for one in expected if one not in often) for table in (observed, expected)]
    table = [[observed[one] for one in often] + [seldom[0]], [expected[one] for one in often] + [seldom[1]]]
    if seldom[1] < 5:
        table = [[*row[:-2], row[-2] + row[-1]] for row in table]
    return float(stats.chisquare(*table).pvalue)


STORES = [
    (((1.0, 2.0, 3.0, 4.0, 5.0, 6.0),), "local"),
    (((1.0, 2.0, 8.0, 0.5), (), (3.0, 1.0, 1.0)), "tcp"),
    (((0.2, 5.0), (1.0, 1.0, 4.0, 2.0)), "ucx"),
]


@pytest.mark.parametrize(("scores", "transport"), STORES)
def test_every_set_of_items_is_as_likely_as_in_successive_sampling(
    run_ranks: RunRanks, scores: Sequence[Sequence[float]], transport: TransportName
) -> None:
    if transport == "ucx":
        pytest.importorskip("ucxx")
    results = run_ranks(draw_sets, len(scores), scores, 3, 12000 // len(scores), transport)
    sets = [one for found in results for one in found]
    weights = np.array([score for own in scores for score in own]) ** EXPONENT
    assert p_value(sets, probabilities_of_sets(weights, 3)) > 0.001


def test_the_same_test_rejects_samplers_that_are_nearly_right() -> None:
    """Uniform ones, and one that draws every rank's share at once by its weight, whatever the rank has left."""
    rng = np.random.default_rng(0)
    weights = np.array([1.0, 2.0, 8.0, 0.5, 3.0, 1.0, 1.0]) ** EXPONENT
    exact = probabilities_of_sets(weights, 3)
    uniform = [tuple(sorted(rng.choice(7, 3, replace=False).tolist())) for _ in range(12000)]
    assert p_value(uniform, exact) < 1e-12
    ranks = ([0, 1, 2, 3], [4, 5, 6])
    split = []
    while len(split) < 12000:
        first = rng.binomial(3, weights[:4].sum() / weights.sum())
        chosen = [
            rng.choice(own, count, replace=False, p=weights[own] / weights[own].sum()).tolist()
            for own, count in zip(ranks, (first, 3 - first), strict=True)
        ]
        split.append(tuple(sorted(chosen[0] + chosen[1])))
    assert p_value(split, exact) < 1e-6


def reference_counts(weights: np.ndarray, first_rank: int, per_draw: int, draws: int) -> np.ndarray:
    """How many items of a draw belong to the first rank, by exponential keys over all items."""
    keys = np.random.default_rng(1).exponential(size=(draws, len(weights))) / weights
    chosen = np.argpartition(keys, per_draw, axis=1)[:, :per_draw]
    return (chosen < first_rank).sum(axis=1)


@pytest.mark.parametrize(("sizes", "transport"), [((40, 300, 0), "tcp"), ((300, 31), "ucx")])
def test_large_stores_of_unequal_ranks_have_their_share(
    run_ranks: RunRanks, sizes: tuple[int, ...], transport: TransportName
) -> None:
    if transport == "ucx":
        pytest.importorskip("ucxx")
    rng = np.random.default_rng(0)
    scores = [rng.lognormal(1.0 - rank, 1.0, size).tolist() for rank, size in enumerate(sizes)]
    results = run_ranks(draw_sets, len(sizes), scores, 24, 1500, transport)
    observed = np.array([sum(number < sizes[0] for number in one) for found in results for one in found])
    assert all(len(set(one)) == 24 for found in results for one in found)
    expected = reference_counts(np.concatenate(scores) ** EXPONENT, sizes[0], 24, 20000)
    bins = np.unique(np.quantile(expected, np.linspace(0, 1, 9)))
    table = np.stack([np.histogram(counts, [-1, *bins[1:-1] + 0.5, 25])[0] for counts in (observed, expected)])
    assert stats.chi2_contingency(table).pvalue > 0.001


@pytest.mark.parametrize("transport", ["tcp", "ucx"])
def test_very_unequal_scores_still_fill_a_draw(run_ranks: RunRanks, transport: TransportName) -> None:
    if transport == "ucx":
        pytest.importorskip("ucxx")
    scores = [[1e9, 1.0, 1e-9, 0.0], [1e6, 1e-3, 0.0, -5.0]]
    for found in run_ranks(draw_unequal, 2, scores, transport):
        assert found == [(0, 1, 2, 4, 5)] * 50, "all with a positive score, and none without"


def draw_unequal(rank: int, scores: list[list[float]], transport: TransportName) -> list[tuple[int, ...]]:
    sets = []
    with make(7, transport=transport) as buffer:
        numbers = torch.arange(4 * rank, 4 * rank + 4)
        buffer.offer(items(numbers), scores=torch.tensor(scores[rank], dtype=torch.float64))
        wait_until(lambda: all(weight > 0 for weight in buffer._transport.weights.values()))
        dist.barrier()
        buffer.take()
        buffer.offer(None)
        for _ in range(50):
            drawn = buffer.update(None)
            assert (drawn["image"] == drawn["number"].view(-1, 1, 1)).all()
            sets.append(tuple(sorted(drawn["number"].tolist())))
        dist.barrier()
    return sets


def prefer_one(rank: int, transport: TransportName) -> list[list[int]]:
    """Rank 0 rewrites the scores of all items on both ranks, so that one of them is left to draw."""
    scores = [[1.0] * 5, [2.0] * 5]
    found = []
    with make(10, transport=transport) as buffer:
        fill(buffer, scores, rank)
        drawn = buffer.take()
        assert len(drawn) == 10
        numbers = drawn["number"].clone()
        dist.barrier()
        for preferred in (7, 2):
            if rank == 0:
                new = (numbers == preferred).float() * 3
                assert buffer.update_items(drawn.ids, scores=new, image=items(numbers)["image"]) == 10
            after = [[3.0 * (number == preferred) for number in range(5 * own, 5 * own + 5)] for own in range(2)]
            know(buffer, after)
            buffer.offer(None)
            found.append(buffer.take()["number"].tolist())
            buffer.offer(None)
            drawn_again = buffer.take()
            assert (drawn_again["image"] == drawn_again["number"].view(-1, 1, 1)).all()
            dist.barrier()
    return found


@pytest.mark.parametrize("transport", ["tcp", "ucx"])
def test_draws_follow_updated_scores_on_every_rank(run_ranks: RunRanks, transport: TransportName) -> None:
    if transport == "ucx":
        pytest.importorskip("ucxx")
    assert run_ranks(prefer_one, 2, transport) == [[[7], [2]], [[7], [2]]]


def test_policies_see_updated_scores() -> None:
    class DropLowest(Policy):
        needs_scores = True

        def place(self, candidate: Candidate, index: Index, rng: np.random.Generator) -> int:
            return APPEND if index.size < index.capacity else int(index.scores[: index.size].argmin())

    with RehearsalBuffer(SCHEMA, capacity=4, representatives=4, candidates=4, policy=DropLowest()) as buffer:
        buffer.offer(items(torch.arange(4)), scores=torch.tensor([1.0, 2.0, 3.0, 4.0]))
        drawn = buffer.take()
        last = drawn["number"] == 3
        assert buffer.update_items(drawn.ids[last], scores=torch.tensor([0.5])) == 1
        buffer.offer(items(torch.tensor([9])), scores=torch.tensor([5.0]))
        assert sorted(buffer.take()["number"].tolist()) == [0, 1, 2, 9]


def test_scores_are_restored_with_their_items() -> None:
    with make(4, capacity=8) as buffer:
        buffer.offer(items(torch.arange(8)), scores=torch.tensor([0.0, 1.0] * 4))
        assert sorted(buffer.take()["number"].tolist()) == [1, 3, 5, 7]
        state = buffer.state_dict()
    with make(4, capacity=8) as buffer:
        buffer.load_state_dict(state)
        buffer.offer(None)
        assert sorted(buffer.take()["number"].tolist()) == [1, 3, 5, 7]


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"draw": "loss"}, "Draw 'loss' is unknown; use one of uniform, score"), ({"score_exponent": 0.0}, "positive")],
)
def test_draws_that_cannot_be_made_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RehearsalBuffer(SCHEMA, **({"capacity": 8, "representatives": 4, "candidates": 4, "draw": "score"} | settings))


def test_a_draw_by_score_needs_scores() -> None:
    with make(4) as buffer:
        with pytest.raises(ValueError, match="A draw by score needs scores"):
            buffer.offer(items(torch.arange(4)))
        buffer.offer(items(torch.arange(4)), scores=torch.ones(4))
        drawn = buffer.take()
        with pytest.raises(ValueError, match="hold a value that is not finite"):
            buffer.update_items(drawn.ids, scores=torch.full((4,), torch.inf))
        with pytest.raises(ValueError, match=r"scores must be floats of shape \(4,\)"):
            buffer.update_items(drawn.ids, scores=torch.ones(3))


class Elsewhere(torch.Tensor):
    """Says that it lies on a GPU until it was brought to the host."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function == torch.Tensor.device.__get__:  # type: ignore[attr-defined]
            return torch.device("cuda", 0)
        result = super().__torch_function__(function, types, args, kwargs)
        return result.as_subclass(torch.Tensor) if function is torch.Tensor.cpu else result


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_new_scores_from_a_gpu_are_looked_at_too(value: float) -> None:
    with make(4) as buffer:
        buffer.offer(items(torch.arange(4)), scores=torch.ones(4))
        drawn = buffer.take()
        with pytest.raises(ValueError, match="hold a value that is not finite"):
            buffer.update_items(drawn.ids, scores=torch.full((4,), value).as_subclass(Elsewhere))
        assert buffer.update_items(drawn.ids, scores=torch.full((4,), 2.0).as_subclass(Elsewhere)) == 4


def test_arrivals_fall_to_ranks_by_weight_and_nowhere_without_any() -> None:
    rng = np.random.default_rng(0)
    counts = Counter(plan_arrivals({0: 1.0, 1: 0.0, 2: 3.0}, 1, rng).popitem()[0] for _ in range(20000))
    assert set(counts) == {0, 2}
    assert stats.chisquare([counts[0], counts[2]], [5000, 15000]).pvalue > 0.001
    assert plan_arrivals({0: 0.0, 1: 0.0}, 5, rng) == {}


def test_what_is_left_is_exact_where_one_item_weighs_nearly_all() -> None:
    index = Index(np.array([3]))
    for number, score in enumerate((1e30, 1.0, 2.0)):
        index.append(Candidate(0, score), item_id=number, row=number)
    weights = ScoreWeights(index, 1.0)
    choice = weights.choose(2, np.random.default_rng(0), excluded=np.zeros(0, np.int64))
    assert choice.positions.tolist() == [0]
    assert choice.remaining == 3.0
    rest = weights.choose(50, np.random.default_rng(0), excluded=np.array([0]))
    assert (rest.positions.tolist(), rest.remaining) == ([1, 2], 0.0)
