"""Several ranks: whole items under many threads, update, checkpoints, ranks that die or stall, idleness."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest
import torch
from support import wait_until
from torch import distributed as dist

from ptychoflow.buffer import Field, RehearsalBuffer, Schema
from ptychoflow.buffer.names import TransportName

RunRanks = Callable[..., list[Any]]
needs_ucxx = pytest.mark.skipif("not __import__('importlib.util').util.find_spec('ucxx')")
TRANSPORTS = ["tcp", pytest.param("ucx", marks=needs_ucxx)]
SCHEMA = Schema(number=Field((), "int64"), image=Field((40, 40), "float32"), state=Field((2000,), "float64"))


def batch(first: int, count: int) -> dict[str, torch.Tensor]:
    """Items all of whose elements say which item it is."""
    numbers = torch.arange(first, first + count)
    return {
        "number": numbers,
        "image": numbers.float().view(-1, 1, 1).expand(count, 40, 40),
        "state": numbers.double().view(-1, 1).expand(count, 2000),
    }


def check_whole(tensors: dict[str, torch.Tensor]) -> None:
    """The image says which item it is; the state too, or all of it minus that after an update."""
    numbers = tensors["number"]
    assert (tensors["image"] == numbers.view(-1, 1, 1)).all()
    state = tensors["state"]
    assert ((state == numbers.view(-1, 1)).all(1) | (state == -numbers.view(-1, 1)).all(1)).all()


def make(transport: TransportName, **settings: Any) -> RehearsalBuffer:
    defaults = {"capacity": 90, "representatives": 24, "candidates": 10, "timeout_s": 20.0}
    return RehearsalBuffer(SCHEMA, transport=transport, **(defaults | settings))


def fill(buffer: RehearsalBuffer, rank: int, count: int, *, ranks: int) -> None:
    """Store `count` items on every rank; returns once every rank knows."""
    for first in range(0, count, 10):
        buffer.offer(batch(1 + 1000 * rank + first, 10))
    wait_until(lambda: buffer.stats().size_per_rank == dict.fromkeys(range(ranks), count))
    dist.barrier()


def hammer(rank: int, transport: TransportName) -> dict[str, int]:
    """Offer and draw while two threads update_items and one reads statistics and checkpoints, on every rank at once."""
    steps, updated, stop = 60, [0, 0], threading.Event()
    with make(transport) as buffer:
        fill(buffer, rank, 30, ranks=3)
        drawn = buffer.take()
        recent = [(drawn.ids.clone(), drawn.tensors["number"].clone())]

        def update_items(which: int) -> None:
            while not stop.is_set():
                ids, numbers = recent[-1]
                sign = (-1) ** (which + len(recent))
                states = (sign * numbers.double()).view(-1, 1).expand(-1, 2000)
                updated[which] += buffer.update_items(ids, state=states)

        def observe() -> None:
            while not stop.is_set():
                assert buffer.stats().size == 30
                shard = buffer.state_dict()
                check_whole(shard["items"])

        threads = [threading.Thread(target=update_items, args=(which,)) for which in (0, 1)]
        threads.append(threading.Thread(target=observe))
        for thread in threads:
            thread.start()
        for step in range(steps):
            buffer.offer(batch(1000 * rank + 31 + 10 * step, 10))
            drawn = buffer.take()
            assert len(drawn) == 24
            assert len(set(drawn.ids.tolist())) == 24
            check_whole(drawn.tensors)
            recent.append((drawn.ids.clone(), drawn.tensors["number"].clone()))
        stop.set()
        for thread in threads:
            thread.join()
        stats = buffer.stats()
        assert not stats.lost_ranks
        dist.barrier()
    return {"updated": sum(updated), "served": stats.served, "replaced": stats.replaced}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_many_threads_never_mix_items(run_ranks: RunRanks, transport: TransportName) -> None:
    results = run_ranks(hammer, 3, transport)
    for result in results:
        assert result["updated"] > 0
        assert result["replaced"] == 600
        assert result["served"] > 60


def update_everything(rank: int, transport: TransportName) -> list[float]:
    with make(transport, representatives=60, capacity=60) as buffer:
        fill(buffer, rank, 30, ranks=2)
        buffer.take()
        buffer.offer(None)
        drawn = buffer.take()
        if rank == 0:
            gone = torch.tensor([2**40])
            states = torch.cat([-drawn.tensors["number"].double(), torch.zeros(1, dtype=torch.float64)])
            ids = torch.cat([drawn.ids, gone])
            assert buffer.update_items(ids, state=states.view(-1, 1).expand(-1, 2000)) == 60
        dist.barrier()
        buffer.offer(None)
        drawn = buffer.take()
        check_whole(drawn.tensors)
        dist.barrier()
        return sorted(drawn.tensors["state"][:, 0].tolist())


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_update_reaches_every_rank(run_ranks: RunRanks, transport: TransportName) -> None:
    numbers = [1 + 1000 * rank + item for rank in range(2) for item in range(30)]
    for states in run_ranks(update_everything, 2, transport):
        assert states == sorted(-float(number) for number in numbers)


MANY = Schema(**{f"field{number}": Field((), "int64") for number in range(63)})


def update_the_last_of_many_fields(rank: int) -> list[int]:
    with RehearsalBuffer(MANY, capacity=4, representatives=4, candidates=2, transport="tcp", timeout_s=20.0) as buffer:
        buffer.offer({name: torch.full((2,), rank) for name in MANY})
        wait_until(lambda: buffer.stats().size_per_rank == {0: 2, 1: 2})
        dist.barrier()
        buffer.take()
        buffer.offer(None)
        ids = buffer.take().ids
        if rank == 0:
            assert buffer.update_items(ids, field62=ids) == 4
        dist.barrier()
        buffer.offer(None)
        drawn = buffer.take()
        dist.barrier()
        assert torch.equal(drawn["field62"], drawn.ids)
        return sorted(drawn["field61"].tolist())


def test_any_field_of_many_can_be_updated(run_ranks: RunRanks) -> None:
    assert run_ranks(update_the_last_of_many_fields, 2) == [[0, 0, 1, 1]] * 2


STOPPED_TIMEOUT_S = 5.0
"""More than a rank goes without a processor where others have something to do."""
KILLED_TIMEOUT_S = 30.0


def survive(rank: int, transport: TransportName, sent: int, timeout_s: float) -> dict[str, Any]:
    """Rank 1 is struck by a signal in the middle of training; the others draw on."""
    survivors = dist.new_group([0, 2])
    with make(transport, timeout_s=timeout_s) as buffer:
        fill(buffer, rank, 30, ranks=3)
        waits: list[float] = []
        while (step := len(waits)) < 60 or 1 not in buffer.stats().lost_ranks:
            if rank == 1 and step == 20:
                os.kill(os.getpid(), sent)
            buffer.offer(batch(1000 * rank + 31 + 10 * step, 10))
            started = time.monotonic()
            drawn = buffer.take()
            waits.append(time.monotonic() - started)
            check_whole(drawn.tensors)
            assert len(drawn) == 24
        stats = buffer.stats()
        dist.barrier(survivors)
        return {"lost": stats.lost_ranks, "waits": sorted(waits), "sizes": set(stats.size_per_rank)}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_rank_that_is_killed_is_noticed_at_once(run_ranks: RunRanks, transport: TransportName) -> None:
    results = run_ranks(survive, 3, transport, int(signal.SIGKILL), KILLED_TIMEOUT_S, doomed=(1,))
    for rank in (0, 2):
        assert "connection lost" in results[rank]["lost"][1]
        assert results[rank]["sizes"] == {0, 2}
        assert results[rank]["waits"][-1] < KILLED_TIMEOUT_S


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_rank_that_is_stopped_costs_the_timeout_once(run_ranks: RunRanks, transport: TransportName) -> None:
    results = run_ranks(survive, 3, transport, int(signal.SIGSTOP), STOPPED_TIMEOUT_S, doomed=(1,))
    for rank in (0, 2):
        assert results[rank]["lost"] == {1: "no answer for 5 s"}
        assert results[rank]["sizes"] == {0, 2}
        *others, longest = results[rank]["waits"]
        assert STOPPED_TIMEOUT_S * 0.9 < longest < 2 * STOPPED_TIMEOUT_S
        assert max(others) < STOPPED_TIMEOUT_S


def come_back_late(rank: int, transport: TransportName) -> set[int]:
    """Rank 1 stands still until the others have given it up, and then does what it had been asked for."""
    pids: list[int] = [0, 0, 0]
    dist.all_gather_object(pids, os.getpid())
    survivors = dist.new_group([0, 2])
    with make(transport, timeout_s=STOPPED_TIMEOUT_S) as buffer:
        fill(buffer, rank, 30, ranks=3)

        def draw(steps: int) -> None:
            for step in range(steps):
                buffer.offer(batch(1000 * rank + 31 + 10 * step, 10))
                drawn = buffer.take()
                check_whole(drawn.tensors)
                assert len(set(drawn.ids.tolist())) == 24

        if rank == 1:
            draw(20)
            os.kill(os.getpid(), signal.SIGSTOP)
            wait_until(lambda: set(buffer.stats().lost_ranks) == {0, 2})
        else:
            while 1 not in buffer.stats().lost_ranks:
                draw(1)
            dist.barrier(survivors)
            if rank == 0:
                os.kill(pids[1], signal.SIGCONT)
            draw(200)
            dist.barrier(survivors)
        return set(buffer.stats().lost_ranks)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_what_a_lost_rank_delivers_late_reaches_no_draw(run_ranks: RunRanks, transport: TransportName) -> None:
    assert run_ranks(come_back_late, 3, transport) == [{1}, {0, 2}, {1}]


def close_while_waiting(rank: int, transport: TransportName) -> float:
    """Seconds that closing takes while a draw waits for a rank that stands still."""
    pids: list[int] = [0, 0]
    dist.all_gather_object(pids, os.getpid())
    buffer = make(transport, capacity=60, representatives=60, timeout_s=60.0)
    fill(buffer, rank, 30, ranks=2)
    buffer.take()
    dist.barrier()
    if rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    wait_until(lambda: psutil.Process(pids[1]).status() == psutil.STATUS_STOPPED)
    buffer.offer(None)
    wait_until(lambda: bool(buffer._transport._requests))
    started = time.monotonic()
    buffer.close()
    return time.monotonic() - started


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_closing_does_not_wait_for_a_rank_that_stands_still(run_ranks: RunRanks, transport: TransportName) -> None:
    assert run_ranks(close_while_waiting, 2, transport, doomed=(1,))[0] < 10.0


def leave_early(rank: int, transport: TransportName) -> tuple[tuple[int, ...], dict[int, str], int]:
    buffer = make(transport)
    fill(buffer, rank, 30, ranks=3)
    if rank == 1:
        buffer.close()
        return (), {}, 0
    wait_until(lambda: 1 in buffer.stats().left_ranks)  # the other survivor may have left as well
    buffer.update(None)
    length = len(buffer.take())
    stats = buffer.stats()
    buffer.close()
    return stats.left_ranks, stats.lost_ranks, length


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_rank_that_closes_is_not_called_lost(run_ranks: RunRanks, transport: TransportName) -> None:
    results = run_ranks(leave_early, 3, transport)
    for rank in (0, 2):
        left, lost, length = results[rank]
        assert 1 in left
        assert lost == {}
        assert length == 24


def idle_and_busy(rank: int, transport: TransportName) -> tuple[float, float]:
    """Processor seconds per second of two idle seconds, and how long closing takes."""
    with make(transport) as buffer:
        fill(buffer, rank, 30, ranks=2)
        buffer.take()
        dist.barrier()
        before, started = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
        time.sleep(2.0)
        after, passed = resource.getrusage(resource.RUSAGE_SELF), time.monotonic() - started
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        dist.barrier()
        closing = time.monotonic()
    return used / passed, time.monotonic() - closing


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_an_idle_buffer_uses_no_processor(run_ranks: RunRanks, transport: TransportName) -> None:
    for idle, closing_s in run_ranks(idle_and_busy, 2, transport):
        assert idle < 0.01
        assert closing_s < 2.0


def serve_and_keep(rank: int, transports: str | None) -> tuple[int, int, bool]:
    """What was served, what of it in place, and whether what was taken is still whole after the buffer is closed."""
    if transports is not None:
        os.environ["UCX_TLS"] = transports
    with make("ucx", representatives=40, capacity=60) as buffer:
        fill(buffer, rank, 30, ranks=2)
        for _ in range(20):
            buffer.update(None)
        drawn = buffer.take()
        assert len(set(drawn.ids.tolist())) == 40
        dist.barrier()
        stats = buffer.stats()
    check_whole(drawn.tensors)
    return stats.served, stats.served_in_place, len(drawn) == 40


@needs_ucxx
def test_ranks_of_one_host_write_into_each_others_outputs(run_ranks: RunRanks) -> None:
    for served, in_place, whole in run_ranks(serve_and_keep, 2, None):
        assert served > 200
        assert in_place == served
        assert whole


@needs_ucxx
def test_ranks_that_share_no_memory_are_sent_their_items(run_ranks: RunRanks) -> None:
    for served, in_place, whole in run_ranks(serve_and_keep, 2, "tcp"):
        assert served > 200
        assert in_place == 0
        assert whole


def make_differently(rank: int) -> list[str]:
    messages = []
    for settings in ({"capacity": 90 + rank}, {"policy": ("fifo", "reservoir")[rank]}):
        with pytest.raises(ValueError, match="made its buffer otherwise") as caught:
            make("tcp", timeout_s=5.0, **settings)
        messages.append(str(caught.value))
    return messages


def test_ranks_that_disagree_are_told_so(run_ranks: RunRanks) -> None:
    for capacity, policy in run_ranks(make_differently, 2):
        assert "capacity=90" in capacity
        assert "capacity=91" in capacity
        assert "FifoPolicy" in policy
        assert "ReservoirPolicy" in policy


def make_alone(rank: int) -> float:
    started = time.monotonic()
    if rank == 0:
        with pytest.raises(TimeoutError, match=r"Ranks \[1\] made no rehearsal buffer within 0.5 s"):
            make("tcp", timeout_s=0.5)
    return time.monotonic() - started


def test_a_rank_that_does_not_appear_is_named(run_ranks: RunRanks) -> None:
    assert 0.5 <= run_ranks(make_alone, 2)[0] < 5.0


def make_two(rank: int) -> list[int]:
    with make("tcp") as first, make("tcp") as second:
        fill(first, rank, 30, ranks=2)
        second.offer(batch(5, 10))
        wait_until(lambda: second.stats().size_per_rank == {0: 10, 1: 10})
        dist.barrier()
        return [first.stats().size, second.stats().size]


def test_two_buffers_of_one_group_do_not_meet(run_ranks: RunRanks) -> None:
    assert run_ranks(make_two, 2) == [[30, 10], [30, 10]]
