"""Ranks that are started again meet in the store of the ranks before, on hosts that count starts differently."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch.distributed as dist
from support import free_ports
from torch.distributed import TCPStore

from ptychoflow.trainer import meeting
from ptychoflow.trainer.device import join_ranks
from ptychoflow.trainer.meeting import agree_on_start
from ptychoflow.trainer.settings import LearningSettings

RANKS = 3


@pytest.fixture
def store():
    """The store that outlives starts."""
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def client(store):
    return TCPStore("127.0.0.1", store.port, is_master=False)


def start(store, pool, order=range(RANKS)):
    meetings = {
        rank: pool.submit(lambda rank=rank: agree_on_start(client(store), rank=rank, world_size=RANKS))
        for rank in order
    }
    return [meetings[rank].result(timeout=60.0) for rank in range(RANKS)]


def test_every_start_has_a_name_of_its_own(store):
    with ThreadPoolExecutor(RANKS) as pool:
        names = [start(store, pool, order) for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2))]
    assert all(len(set(one)) == 1 for one in names)
    assert len({one[0] for one in names}) == 3


def test_ranks_that_asked_and_were_killed_do_not_count(store):
    for rank in (1, 2):
        client(store).set(meeting._asks(rank), "of a start that never was")
    with ThreadPoolExecutor(RANKS) as pool:
        assert len(set(start(store, pool, (0, 2, 1)))) == 1


def test_who_does_not_come_is_told(store):
    with pytest.raises(TimeoutError, match=r"ranks \[1\] did not come"):
        agree_on_start(client(store), rank=0, world_size=2, patience_s=0.5)
    with pytest.raises(TimeoutError, match="rank 0 did not come"):
        agree_on_start(client(store), rank=1, world_size=2, patience_s=0.5)


def join(rank, port, restarts, done):
    import os  # noqa: PLC0415

    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RESTART_COUNT": str(restarts),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    with join_ranks(LearningSettings(device="cpu", threads=1)) as joined:
        dist.barrier()
        done.put((joined.rank, joined.world_size))


def test_hosts_that_have_restarted_their_ranks_differently_often_meet():
    (port,) = free_ports(1)
    agent = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    assert agent.port == port
    context = multiprocessing.get_context("spawn")
    for restarts in ((0, 0), (1, 3)):
        done = context.SimpleQueue()
        ranks = [context.Process(target=join, args=(rank, port, restarts[rank], done)) for rank in range(2)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(60.0)
            hung = process.is_alive()
            process.kill()
            assert not hung
            assert process.exitcode == 0
        assert sorted(done.get() for _ in ranks) == [(0, 2), (1, 2)]
