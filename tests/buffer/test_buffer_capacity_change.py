"""A saved buffer goes on with another capacity: items are dealt anew, and every rank has room for what comes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support import wait_until
from torch import distributed as dist

from ptychoflow.buffer import Field, RehearsalBuffer, Schema
from ptychoflow.buffer.names import PolicyName

RunRanks = Callable[..., list[Any]]
SCHEMA = Schema(number=Field((), "int64"))


def make(capacity: int, **settings: Any) -> RehearsalBuffer:
    defaults: dict[str, Any] = {"representatives": 4, "candidates": 2, "timeout_s": 20.0}
    return RehearsalBuffer(SCHEMA, capacity=capacity, **(defaults | settings))


def offer(buffer: RehearsalBuffer, first: int, count: int) -> None:
    """Offer numbers, two at a time; the class of a number is its remainder."""
    for number in range(first, first + count, 2):
        numbers = torch.arange(number, min(number + 2, first + count))
        buffer.offer({"number": numbers}, labels=numbers % buffer._options.classes)


def numbers_in(shard: dict[str, Any]) -> list[int]:
    return sorted(shard["items"]["number"].tolist())


def save(rank: int, folder: str, capacity: int, counts: tuple[int, ...], settings: dict[str, Any]) -> None:
    with make(capacity, **settings) as buffer:
        offer(buffer, 1000 * rank, counts[rank])
        torch.save(buffer.state_dict(), Path(folder) / f"{rank}.pt")
        dist.barrier()


def load(
    rank: int, folder: str, capacity: int, without_quotas: bool, settings: dict[str, Any]
) -> tuple[list[int], int, list[int], list[int]]:
    """What the rank holds, the room it has, and what it holds of each class after much more was offered."""
    shards = [torch.load(Path(folder) / f"{shard}.pt", weights_only=True) for shard in range(2)]
    if without_quotas:
        for shard in shards:
            del shard["quotas"]
    with make(capacity, **settings) as buffer:
        buffer.load_shards(shards)
        held = numbers_in(buffer.state_dict())
        offer(buffer, 5000 + 1000 * rank, 60)
        stats = buffer.stats()
        later: dict[str, Any] = buffer.state_dict()
        wait_until(lambda: sum(buffer.stats().size_per_rank.values()) == capacity)
        dist.barrier()
        per_class = torch.bincount(later["labels"], minlength=buffer._options.classes).tolist()
        return held, stats.capacity_rank, list(stats.capacity_per_class), per_class


@pytest.mark.parametrize("without_quotas", [False, True])
@pytest.mark.parametrize(
    ("capacities", "counts", "settings"),
    [
        ((40, 30), (20, 2), {"candidates": 2}),
        ((40, 30), (20, 2), {"candidates": 14}),
        ((10, 11), (20, 20), {"classes": 3}),
        ((40, 50), (20, 2), {"policy": "fifo"}),
    ],
)
def test_as_many_ranks_go_on_with_another_capacity(
    run_ranks: RunRanks,
    tmp_path: Path,
    capacities: tuple[int, int],
    counts: tuple[int, int],
    settings: dict[str, Any],
    without_quotas: bool,
) -> None:
    before, after = capacities
    run_ranks(save, 2, str(tmp_path), before, counts, settings)
    saved = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    results = run_ranks(load, 2, str(tmp_path), after, without_quotas, settings)
    assert sorted(results[0][0] + results[1][0]) == sorted(numbers_in(saved[0]) + numbers_in(saved[1]))
    for held, room, quotas, per_class in results:
        assert len(held) <= room
        assert per_class == quotas, "every class has filled its room"


@pytest.mark.parametrize("shards", [True, False], ids=["load_shards", "load_state_dict"])
def test_a_ring_that_has_grown_still_removes_the_oldest(shards: bool) -> None:
    with make(12, policy="fifo") as buffer:
        offer(buffer, 0, 18)
        saved: dict[str, Any] = buffer.state_dict()
    assert numbers_in(saved) == list(range(6, 18))
    with make(24, policy="fifo") as buffer:
        if shards:
            buffer.load_shards([saved])
        else:
            buffer.load_state_dict(saved)
        offer(buffer, 18, 24)
        assert numbers_in(buffer.state_dict()) == list(range(18, 42))


@pytest.mark.parametrize("policy", ["fifo", "balanced_reservoir"])
def test_shards_that_do_not_tell_their_room_go_on_where_they_fit(policy: PolicyName) -> None:
    """Those saved before shards told it."""
    with make(12, policy=policy) as whole, make(12, policy=policy) as restored:
        offer(whole, 0, 18)
        saved: dict[str, Any] = whole.state_dict()
        del saved["quotas"]
        restored.load_shards([saved])
        for buffer in (whole, restored):
            offer(buffer, 18, 10)
        assert numbers_in(restored.state_dict()) == numbers_in(whole.state_dict())


def test_classes_that_share_all_room_may_be_counted_otherwise() -> None:
    """Quotas of classes mean nothing there, so what was saved goes on exactly."""
    settings = {"policy": "balanced_reservoir"}
    with make(12, classes=2, **settings) as whole, make(12, classes=3, **settings) as restored:
        offer(whole, 0, 18)
        restored.load_shards([whole.state_dict()])
        assert restored.state_dict()["random_state"] == whole.state_dict()["random_state"]
