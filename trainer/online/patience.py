"""What one rank waits for, while the others wait for it: however long it takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

import torch
import torch.distributed as dist

LOOK_S = 1.0
"""Ranks meet so often meanwhile: a collective that one of them joins half an hour later than others fails."""


def wait_together(work: Callable[[], None] | None) -> None:
    """Do `work`, which may wait long, in a thread, and return on all ranks once it is done. Collective.

    Args:
        work: None on ranks that have none. What it raises is raised on its rank.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="waiting") as pool:
        waiting = [] if work is None else [pool.submit(work)]
        while on_any_rank(any(not one.done() for one in waiting)):
            if waiting:
                wait(waiting, timeout=LOOK_S)
            else:
                time.sleep(LOOK_S)
        for one in waiting:
            one.result()


def on_any_rank(here: bool) -> bool:
    """Return whether something is so on any rank. Collective."""
    known = torch.tensor([float(here)])
    if dist.is_initialized():
        dist.all_reduce(known, op=dist.ReduceOp.MAX)
    return bool(known.item())
