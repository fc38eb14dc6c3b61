"""Every item on every rank is equally likely in every draw: real processes, both network transports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from support import wait_until
from torch import distributed as dist

from ptychoflow.buffer import Field, RehearsalBuffer, Schema
from ptychoflow.buffer.names import TransportName

SCHEMA = Schema(number=Field((), "int64"))
PER_DRAW = 200
DRAWN_AT_LEAST = 200_000


def fill(buffer: RehearsalBuffer, sizes: tuple[int, ...], *, rank: int, classes: int) -> None:
    """Store numbers that are unique over all ranks; returns once every rank knows every rank's size."""
    first = sum(sizes[:rank])
    numbers = torch.arange(first, first + sizes[rank])
    buffer.offer({"number": numbers}, labels=numbers % classes)
    wait_until(lambda: buffer.stats().size_per_rank == dict(enumerate(sizes)))
    dist.barrier()


def draw_often(rank: int, sizes: tuple[int, ...], transport: TransportName, classes: int) -> np.ndarray:
    ranks = len(sizes)
    counts = np.zeros(sum(sizes), np.int64)
    with RehearsalBuffer(
        SCHEMA, capacity=ranks * 300, representatives=PER_DRAW, candidates=300, classes=classes, transport=transport
    ) as buffer:
        fill(buffer, sizes, rank=rank, classes=classes)
        buffer.take()  # drawn before all sizes were known
        buffer.offer(None)
        for _ in range(-(-DRAWN_AT_LEAST // (PER_DRAW * ranks))):
            numbers = buffer.update(None).tensors["number"].numpy()
            assert len(np.unique(numbers)) == PER_DRAW
            counts[numbers] += 1
        assert buffer.stats().transport == transport
        dist.barrier()
    return counts


def uniform_p_value(counts: np.ndarray) -> float:
    """Chi-square over items, corrected for draws without replacement."""
    items = len(counts)
    statistic = stats.chisquare(counts).statistic / ((items - PER_DRAW) / (items - 1))
    return float(stats.chi2.sf(statistic, items - 1))


@pytest.mark.parametrize(
    ("sizes", "transport", "classes"),
    [
        ((300, 31), "tcp", 10),
        ((20, 300), "ucx", 1),
        ((0, 300, 7), "ucx", 10),
        ((15, 180, 300), "tcp", 1),
        ((300, 0, 1, 140), "tcp", 10),
        ((40, 300, 0, 150), "ucx", 1),
    ],
)
def test_draws_are_uniform(
    run_ranks: Callable[..., list[Any]], sizes: tuple[int, ...], transport: TransportName, classes: int
) -> None:
    if transport == "ucx":
        pytest.importorskip("ucxx")
    counts = np.sum(run_ranks(draw_often, len(sizes), sizes, transport, classes), axis=0)
    assert counts.sum() >= DRAWN_AT_LEAST
    assert uniform_p_value(counts) > 0.001


def test_the_same_test_rejects_a_biased_sampler() -> None:
    """Half of every draw from each rank, whatever they hold: 190 and 210 items."""
    rng = np.random.default_rng(0)
    counts = np.zeros(400, np.int64)
    for _ in range(-(-DRAWN_AT_LEAST // PER_DRAW)):
        counts[rng.choice(190, PER_DRAW // 2, replace=False)] += 1
        counts[190 + rng.choice(210, PER_DRAW // 2, replace=False)] += 1
    assert uniform_p_value(counts) < 1e-12


def test_the_same_test_accepts_a_uniform_sampler() -> None:
    rng = np.random.default_rng(0)
    counts = np.zeros(400, np.int64)
    for _ in range(-(-DRAWN_AT_LEAST // PER_DRAW)):
        counts[rng.choice(400, PER_DRAW, replace=False)] += 1
    assert uniform_p_value(counts) > 0.001


def draw_everything(rank: int, transport: TransportName) -> tuple[list[int], list[int]]:
    """All items at once, and how draws grew while the stores did."""
    with RehearsalBuffer(SCHEMA, capacity=30, representatives=30, candidates=1, transport=transport) as buffer:
        lengths = [len(buffer.update({"number": torch.tensor([100 * rank + step])})) for step in range(10)]
        buffer.take()
        wait_until(lambda: buffer.stats().size_per_rank == dict.fromkeys(range(3), 10))
        buffer.offer(None)
        numbers = buffer.take().tensors["number"].tolist()
        dist.barrier()
    return sorted(numbers), lengths


@pytest.mark.parametrize("transport", ["tcp", "ucx"])
def test_all_items_of_all_ranks_in_one_draw(run_ranks: Callable[..., list[Any]], transport: TransportName) -> None:
    if transport == "ucx":
        pytest.importorskip("ucxx")
    for numbers, lengths in run_ranks(draw_everything, 3, transport):
        assert numbers == [100 * rank + step for rank in range(3) for step in range(10)]
        assert lengths[0] == 0
        assert all(length >= step for step, length in enumerate(lengths))
        assert lengths == sorted(lengths)


def draw_locally(rank: int) -> set[int]:
    with RehearsalBuffer(SCHEMA, capacity=20, representatives=10, candidates=1, transport="local") as buffer:
        for step in range(12):
            buffer.offer({"number": torch.tensor([100 * rank + step])})
        return set(buffer.take().tensors["number"].tolist())


def test_local_transport_keeps_to_its_own_items(run_ranks: Callable[..., list[Any]]) -> None:
    for rank, numbers in enumerate(run_ranks(draw_locally, 2)):
        assert len(numbers) == 10
        assert numbers <= {100 * rank + step for step in range(12)}
