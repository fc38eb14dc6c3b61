"""Shards: an uninterrupted run and one that was restored, on the same and on other numbers of ranks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import wait_until
from torch import distributed as dist

from ptychoflow.buffer import Field, RehearsalBuffer, Schema
from ptychoflow.buffer.names import PolicyName

RunRanks = Callable[..., list[Any]]
SCHEMA = Schema(number=Field((), "int64"), image=Field((3, 2), "uint16"), state=Field((2,), "bfloat16"))
RARE = Schema(number=Field((), "int64"))
RARE_SETTINGS: dict[str, Any] = {"capacity": 30, "representatives": 8, "candidates": 6, "timeout_s": 20.0}
POLICIES: list[PolicyName] = ["random", "reservoir", "balanced_reservoir", "fifo", "loss_aware", "herding"]


def make(policy: PolicyName = "random", **settings: Any) -> RehearsalBuffer:
    defaults = {"capacity": 30, "representatives": 8, "candidates": 4, "classes": 3, "seed": 7, "timeout_s": 20.0}
    return RehearsalBuffer(SCHEMA, policy=policy, **(defaults | settings))


def offer(buffer: RehearsalBuffer, step: int) -> None:
    numbers = torch.arange(6 * step, 6 * step + 6)
    features = torch.stack([numbers.sin(), numbers.cos()], dim=1).float()
    minibatch = {
        "number": numbers,
        "image": numbers.view(-1, 1, 1).expand(6, 3, 2).to(torch.uint16),
        "state": numbers.view(-1, 1).expand(6, 2).bfloat16(),
    }
    buffer.offer(minibatch, labels=numbers // 2 % 3, scores=1 + numbers.cos(), features=features)


def through_a_file(shard: dict[str, object], path: Path) -> dict[str, Any]:
    torch.save(shard, path)
    loaded: dict[str, Any] = torch.load(path, weights_only=True, mmap=True)
    return loaded


@pytest.mark.parametrize("policy", POLICIES)
def test_a_restored_run_goes_on_as_if_never_interrupted(policy: PolicyName, tmp_path: Path) -> None:
    with make(policy) as whole, make(policy) as first, make(policy) as second:
        for step in range(40):
            offer(whole, step)
            offer(first, step)
            whole.take()
            first.take()
        second.load_shards([through_a_file(first.state_dict(), tmp_path / "shard.pt")])
        assert second.stats().offered == 40
        for step in range(40, 80):
            offer(whole, step)
            offer(second, step)
            expected, drawn = whole.take(), second.take()
            assert torch.equal(drawn.ids, expected.ids)
            assert torch.equal(drawn.labels, expected.labels)
            for name in SCHEMA:
                assert torch.equal(drawn.tensors[name], expected.tensors[name])


def save(rank: int, folder: str, steps: int, policy: PolicyName) -> None:
    with make(policy) as buffer:
        for step in range(steps):
            offer(buffer, 2 * step + rank)
        torch.save(buffer.state_dict(), Path(folder) / f"{rank}.pt")
        dist.barrier()


def load(rank: int, folder: str, saved_ranks: int, policy: PolicyName) -> dict[str, Any]:
    shards = [torch.load(Path(folder) / f"{shard}.pt", weights_only=True, mmap=True) for shard in range(saved_ranks)]
    held = sum(len(shard["ids"]) for shard in shards)
    with make(policy, representatives=30) as buffer:
        buffer.load_shards(shards)
        wait_until(lambda: sum(buffer.stats().size_per_rank.values()) >= held)
        dist.barrier()
        buffer.offer(None)
        drawn = buffer.take()
        numbers, ids = drawn.tensors["number"].clone(), drawn.ids.clone()
        assert (drawn.tensors["image"].long() == numbers.view(-1, 1, 1)).all()
        dist.barrier()
        updated = buffer.update_items(ids, state=torch.zeros(len(ids), 2, dtype=torch.bfloat16)) if rank == 0 else 0
        dist.barrier()
        stats = buffer.stats()
        for step in range(1000, 1010):
            offer(buffer, 2 * step + rank)
        shard = buffer.state_dict()
        dist.barrier()
        return {
            "size": stats.size,
            "capacity": stats.capacity_rank,
            "per_class": stats.size_per_class,
            "pairs": sorted(zip(ids.tolist(), numbers.tolist(), strict=True)),
            "updated": updated,
            "random": shard["random_state"],
            "later_ids": shard["ids"].tolist(),
            "later_numbers": shard["items"]["number"].tolist(),
        }


@pytest.mark.parametrize(
    ("saved_ranks", "ranks", "steps", "policy"),
    [(2, 3, 30, "random"), (3, 2, 30, "fifo"), (3, 1, 2, "reservoir"), (2, 2, 30, "herding"), (1, 3, 9, "loss_aware")],
)
def test_another_number_of_ranks_keeps_every_item(
    run_ranks: RunRanks, tmp_path: Path, saved_ranks: int, ranks: int, steps: int, policy: PolicyName
) -> None:
    run_ranks(save, saved_ranks, str(tmp_path), steps, policy)
    shards = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(saved_ranks)]
    expected = sorted(
        pair for shard in shards for pair in zip(shard["ids"].tolist(), shard["items"]["number"].tolist(), strict=True)
    )
    results = run_ranks(load, ranks, str(tmp_path), saved_ranks, policy)
    for result in results:
        assert result["pairs"] == expected
        assert result["size"] <= result["capacity"]
    assert sum(result["size"] for result in results) == len(expected)
    for label in range(3):
        counts = [result["per_class"].get(label, 0) for result in results]
        assert max(counts) - min(counts) <= (1 if ranks != saved_ranks else 10)
    assert results[0]["updated"] == len(expected)
    assert len({result["random"] for result in results}) == ranks
    later = [pair for result in results for pair in zip(result["later_ids"], result["later_numbers"], strict=True)]
    assert len({item for item, _ in later}) == len(later)
    new = {item for item, number in later if number >= 6000}
    assert new
    assert not new & {item for item, _ in expected}


def save_and_go_on(rank: int, folder: str, policy: PolicyName, interrupted: bool) -> tuple[list[Any], list[Any]]:
    """What a rank holds after 60 steps, and its draws of its own items; saved and restored after 30, or not."""
    settings = {"transport": "local", "capacity": 60}
    buffer = make(policy, **settings)
    drawn = []
    for step in range(60):
        if step == 30 and interrupted:
            torch.save(buffer.state_dict(), Path(folder) / f"{rank}.pt")
            buffer.close()
            buffer = make(policy, **settings)
            buffer.load_state_dict(torch.load(Path(folder) / f"{rank}.pt", weights_only=True))
        offer(buffer, 2 * step + rank)
        drawn.append(buffer.take().ids.tolist())
    state: dict[str, Any] = buffer.state_dict()
    buffer.close()
    return drawn, [state["ids"].tolist(), state["items"]["number"].tolist(), state["seen"], state["random_state"]]


@pytest.mark.parametrize("policy", POLICIES)
def test_every_rank_goes_on_from_its_own_state(run_ranks: RunRanks, tmp_path: Path, policy: PolicyName) -> None:
    whole = run_ranks(save_and_go_on, 2, str(tmp_path), policy, False)
    assert run_ranks(save_and_go_on, 2, str(tmp_path), policy, True) == whole
    assert whole[0] != whole[1]


def deal_then_save(rank: int, folder: str, saved_ranks: int) -> tuple[int, int]:
    """Two ranks share the shards of three, then are restored from their own states and rewrite every item."""
    shards = [torch.load(Path(folder) / f"{shard}.pt", weights_only=True) for shard in range(saved_ranks)]
    with make("random") as buffer:
        buffer.load_shards(shards)
        own = buffer.state_dict()
        dist.barrier()
    with make("random", representatives=30) as buffer:
        buffer.load_state_dict(own)
        held = sum(len(shard["ids"]) for shard in shards)
        wait_until(lambda: sum(buffer.stats().size_per_rank.values()) == held)
        buffer.offer(None)
        ids = buffer.take().ids
        updated = buffer.update_items(ids, state=torch.zeros(len(ids), 2, dtype=torch.bfloat16)) if rank == 0 else 0
        dist.barrier()
        return updated, held


def test_own_states_know_where_items_went_that_were_dealt_anew(run_ranks: RunRanks, tmp_path: Path) -> None:
    run_ranks(save, 3, str(tmp_path), 30, "random")
    (updated, held), _ = run_ranks(deal_then_save, 2, str(tmp_path), 3)
    assert updated == held


def test_only_the_own_state_is_restored_as_it_was() -> None:
    with make() as buffer:
        offer(buffer, 0)
        state: dict[str, Any] = buffer.state_dict()
    with make() as other:
        with pytest.raises(ValueError, match="has rank 1; this buffer needs 0"):
            other.load_state_dict(state | {"rank": 1})
        with pytest.raises(ValueError, match="has world_size 2; this buffer needs 1"):
            other.load_state_dict(state | {"world_size": 2})
        other.load_state_dict(state)
        assert other.stats().offered == 1
    with make(capacity=3, representatives=3) as small, pytest.raises(ValueError, match="there is room for 1"):
        small.load_state_dict(state)


def test_fifo_still_removes_the_oldest_after_a_restore(tmp_path: Path) -> None:
    settings = {"capacity": 12, "classes": 1, "policy": "fifo", "candidates": 6}

    def add(buffer: RehearsalBuffer, first: int) -> None:
        numbers = torch.arange(first, first + 6)
        buffer.offer(
            {
                "number": numbers,
                "image": torch.zeros(6, 3, 2, dtype=torch.uint16),
                "state": torch.zeros(6, 2, dtype=torch.bfloat16),
            }
        )

    with make(**settings) as before, make(**settings) as after:
        for first in (0, 6, 12):
            add(before, first)
        after.load_shards([before.state_dict()])
        add(after, 18)
        assert sorted(after.state_dict()["items"]["number"].tolist()) == list(range(12, 24))  # type: ignore[index]


def test_reservoir_goes_on_as_one_stream_after_a_restore_on_fewer_ranks() -> None:
    """Streams of 2 ranks with 300 candidates each become one of 600."""
    shards: list[dict[str, Any]] = []
    for rank in range(2):
        with make("reservoir", capacity=15, classes=1, candidates=6) as buffer:
            for step in range(50):
                numbers = torch.arange(6 * step, 6 * step + 6)
                buffer.offer(
                    {
                        "number": numbers,
                        "image": torch.zeros(6, 3, 2, dtype=torch.uint16),
                        "state": torch.zeros(6, 2, dtype=torch.bfloat16),
                    }
                )
            shard: dict[str, Any] = buffer.state_dict()
            shards.append(shard | {"rank": rank, "world_size": 2, "ids": shard["ids"] | rank})
    with make("reservoir", capacity=30, classes=1) as buffer:
        buffer.load_shards(shards)
        assert buffer.state_dict()["seen"] == {"0": 600}


def load_and_save(rank: int, folder: str, saved_ranks: int) -> None:
    """Replace the folder's shards by those of these ranks."""
    shards = [torch.load(Path(folder) / f"{shard}.pt", weights_only=True) for shard in range(saved_ranks)]
    with make("herding") as buffer:
        buffer.load_shards(shards)
        dist.barrier()
        torch.save(buffer.state_dict(), Path(folder) / f"{rank}.pt")
        dist.barrier()


def seen_by(folder: Path, ranks: int) -> list[float]:
    """How many samples of each class all ranks' herding has seen, and their mean feature."""
    states = [torch.load(folder / f"{rank}.pt", weights_only=True)["policy_state"] for rank in range(ranks)]
    past = []
    for label in "012":
        count, total = (sum(state[label][name] for state in states) for name in ("count", "sum"))
        past += [count, *(total / count).tolist()]
    return past


def test_herding_remembers_the_past_once_on_any_number_of_ranks(run_ranks: RunRanks, tmp_path: Path) -> None:
    """From restore to restore the ranks together have seen as much, and the same."""
    with make("herding") as buffer:
        for step in range(30):
            offer(buffer, step)
        torch.save(buffer.state_dict(), tmp_path / "0.pt")
    expected = seen_by(tmp_path, 1)
    assert sum(expected[::3]) == 4 * 30
    for before, ranks in ((1, 3), (3, 2), (2, 1)):
        run_ranks(load_and_save, ranks, str(tmp_path), before)
        assert seen_by(tmp_path, ranks) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"capacity": 15}, "hold 10 items of class 0; there is room for 5"),
        ({"classes": 2}, "hold labels up to 2; this buffer has 2 classes"),
        ({"policy": "fifo"}, "has policy 'RandomPolicy'; this buffer needs 'FifoPolicy'"),
    ],
)
def test_shards_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    with make() as buffer:
        for step in range(40):
            offer(buffer, step)
        shard = buffer.state_dict()
    with make(**change) as other, pytest.raises(ValueError, match=message):
        other.load_shards([shard])


@pytest.mark.parametrize("policy", ["random", "herding"])
def test_features_of_another_size_than_those_restored_are_refused(policy: PolicyName) -> None:
    with make(policy) as buffer:
        offer(buffer, 0)
        shard = buffer.state_dict()
    for restore in (lambda one: one.load_state_dict(shard), lambda one: one.load_shards([shard])):
        with make(policy) as other:
            restore(other)
            minibatch = {name: field[:1] for name, field in shard["items"].items()}
            with pytest.raises(ValueError, match=r"features must be floats of shape \(1, 2\), not \(1, 5\)"):
                other.offer(minibatch, labels=torch.zeros(1, dtype=torch.int64), features=torch.zeros(1, 5))
            offer(other, 1)
            assert len(other.take()) == 8


def test_incomplete_sets_and_late_restores_are_refused() -> None:
    with make() as buffer:
        offer(buffer, 0)
        shard = buffer.state_dict()
        with pytest.raises(ValueError, match="before the first offer"):
            buffer.load_shards([shard])
    with make() as other:
        with pytest.raises(ValueError, match="no shards"):
            other.load_shards([])
        with pytest.raises(ValueError, match="world_size 1; this buffer needs 2"):
            other.load_shards([shard, shard])


@pytest.mark.parametrize("policy", POLICIES)
def test_an_empty_buffer_is_saved_and_restored(policy: PolicyName, tmp_path: Path) -> None:
    with make(policy) as empty, make(policy) as restored:
        shard = through_a_file(empty.state_dict(), tmp_path / "empty.pt")
        assert {name: tuple(rows.shape) for name, rows in shard["items"].items()} == {
            "number": (0,), "image": (0, 3, 2), "state": (0, 2),
        }  # fmt: skip
        assert {name: rows.dtype for name, rows in shard["items"].items()} == {
            name: field.torch_dtype for name, field in SCHEMA.items()
        }
        restored.load_shards([shard])
        for buffer in (empty, restored):
            assert len(buffer.take()) == 0
            offer(buffer, 0)
            assert len(buffer.take()) == 4


def load_one_empty_shard(rank: int, shards: list[dict[str, Any]]) -> int:
    with make() as buffer:
        buffer.load_shards(shards)
        wait_until(lambda: sum(buffer.stats().size_per_rank.values()) == len(shards[0]["ids"]))
        dist.barrier()
        buffer.offer(None)
        drawn = len(buffer.take())
        buffer.state_dict()
        dist.barrier()
        return drawn


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_shards_of_ranks_that_had_stored_nothing_are_restored(run_ranks: RunRanks, ranks: int) -> None:
    shards: list[dict[str, Any]] = []
    for rank, steps in enumerate((1, 0)):
        with make() as buffer:
            for step in range(steps):
                offer(buffer, step)
            shards.append(buffer.state_dict() | {"rank": rank, "world_size": 2})
    assert run_ranks(load_one_empty_shard, ranks, shards) == [4] * ranks


def test_no_items_at_all_are_offered_and_updated() -> None:
    none = {name: torch.zeros(0, *field.shape, dtype=field.torch_dtype) for name, field in SCHEMA.items()}
    with make("herding") as buffer:
        for _ in range(2):
            buffer.offer(
                none, labels=torch.zeros(0, dtype=torch.int64), scores=torch.zeros(0), features=torch.zeros(0, 2)
            )
            drawn = buffer.take()
            assert buffer.update_items(drawn.ids[:0], number=none["number"], state=none["state"]) == 0
            offer(buffer, 0)
        assert len(buffer.take()) == 8


def test_a_shard_is_plain_data() -> None:
    with make("herding") as buffer:
        for step in range(5):
            offer(buffer, step)
        shard = buffer.state_dict()

    def check(value: object) -> None:
        if isinstance(value, dict):
            assert all(isinstance(key, str) for key in value)
            for inner in value.values():
                check(inner)
        else:
            assert type(value) in (torch.Tensor, int, float, str)
            assert not isinstance(value, np.generic)

    check(shard)


def go_on_with_rare_classes(rank: int, folder: str) -> tuple[int, int]:
    """What a rank of two remembers of a stream of 300 classes, and how many of 60 more samples it takes in."""
    shard = torch.load(Path(folder) / "shard.pt", weights_only=True)
    with RehearsalBuffer(RARE, policy="balanced_reservoir", transport="local", **RARE_SETTINGS) as buffer:
        buffer.load_shards([shard])
        for step in range(10):
            numbers = torch.arange(6 * step, 6 * step + 6) + 1000 * (rank + 1)
            buffer.offer({"number": numbers}, labels=numbers)
        seen: dict[str, int] = buffer.state_dict()["seen"]  # type: ignore[assignment]
        return sum(seen.values()), buffer.stats().accepted


def test_a_stream_of_classes_that_came_once_each_is_shared_among_ranks(run_ranks: RunRanks, tmp_path: Path) -> None:
    """Half of one sample of a class is no sample, but half of 300 are 150."""
    with RehearsalBuffer(RARE, policy="balanced_reservoir", **RARE_SETTINGS) as buffer:
        for step in range(50):
            numbers = torch.arange(6 * step, 6 * step + 6)
            buffer.offer({"number": numbers}, labels=numbers)
        torch.save(buffer.state_dict(), tmp_path / "shard.pt")
    for seen, accepted in run_ranks(go_on_with_rare_classes, 2, str(tmp_path)):
        assert seen == 150 + 60
        assert accepted < 20, "15 ln(210 / 150), about 5, are to be expected; of a stream that begins, 15 (1 + ln 4)"
