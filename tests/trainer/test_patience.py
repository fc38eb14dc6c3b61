"""A rank waits longer than a collective may take, and the others wait for it."""

from __future__ import annotations

import multiprocessing
import time
from datetime import timedelta

import pytest
import torch.distributed as dist
from support import free_ports

from ptychoflow.trainer.online.patience import LOOK_S, wait_together

COLLECTIVE_S = 3.0


def wait_as_one_of_two(rank: int, port: int) -> None:
    store = dist.TCPStore("127.0.0.1", port, is_master=rank == 0)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=COLLECTIVE_S))
    began_s = time.monotonic()
    wait_together((lambda: time.sleep(2 * COLLECTIVE_S)) if rank == 0 else None)
    assert time.monotonic() - began_s > 2 * COLLECTIVE_S - LOOK_S, "it has not waited"
    dist.destroy_process_group()


def test_ranks_wait_longer_than_a_collective_may_take() -> None:
    (port,) = free_ports(1)
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=wait_as_one_of_two, args=(rank, port)) for rank in (0, 1)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(60.0)
        rank.kill()
        rank.join()
    assert [rank.exitcode for rank in ranks] == [0, 0]


def test_what_the_work_raises_is_raised() -> None:
    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        wait_together(fail)
