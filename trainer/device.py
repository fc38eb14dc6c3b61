"""Which device, precision and threads a rank uses, and its place among the ranks."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from ptychoflow.streaming.errors import UserError
from ptychoflow.trainer.meeting import MEETING_VARIABLE, agree_on_start
from ptychoflow.trainer.models.arithmetic import resolve
from ptychoflow.trainer.models.precision import Precision
from ptychoflow.trainer.network_interface import shared_interface
from ptychoflow.trainer.settings import Device, LearningSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rank:
    """One process of the trainer."""

    rank: int
    world_size: int
    device: torch.device
    precision: Precision
    """FLOAT32 or BFLOAT16."""


@contextmanager
def join_ranks(settings: LearningSettings, *, interface: str | None = None) -> Iterator[Rank]:
    """Join the process group that torchrun's environment describes, or stay alone without one.

    Blocks until all ranks have come. CPU tensors travel by gloo, CUDA tensors by NCCL.

    Args:
        settings: device, precision and threads.
        interface: `network.interface`; ranks that are all on this host use loopback without it.

    Raises:
        UserError: CUDA is asked for and there is none, or this host has no such interface.
    """
    local_rank, local_ranks = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    device = _device(settings.device, local_rank)
    torch.set_num_threads(settings.threads or max(1, len(os.sched_getaffinity(0)) // local_ranks))
    with ExitStack() as stack:
        distributed = "RANK" in os.environ and "WORLD_SIZE" in os.environ
        if distributed:
            store, own_rank, world_size = _meeting_place()
            on_one_host = local_ranks == world_size
            stack.enter_context(
                shared_interface(interface, store, rank=own_rank, world_size=world_size, on_one_host=on_one_host)
            )
            backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
            dist.init_process_group(backend, store=store, rank=own_rank, world_size=world_size)
            stack.callback(dist.destroy_process_group)
        rank = Rank(
            rank=dist.get_rank() if distributed else 0,
            world_size=dist.get_world_size() if distributed else 1,
            device=device,
            precision=resolve(settings.precision, device),
        )
        log.info(
            "rank %d of %d on %s, %s, %d threads",
            rank.rank,
            rank.world_size,
            device,
            rank.precision,
            torch.get_num_threads(),
        )
        yield rank


def _meeting_place() -> tuple[Store, int, int]:
    """Return this start's own part of the store where ranks meet, the own rank, and the number of ranks.

    The store is the file that the one who started the ranks names, else the one that torchrun names.
    """
    file = os.environ.get(MEETING_VARIABLE)
    if file is None:
        store, rank, world_size = next(rendezvous("env://"))
    else:
        store = dist.FileStore(file)  # type: ignore[attr-defined]
        rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    start = agree_on_start(store, rank=rank, world_size=world_size)
    return PrefixStore(f"start-{start}", store), rank, world_size


def _device(choice: Device, local_rank: int) -> torch.device:
    available = torch.cuda.is_available()
    if choice is Device.CUDA and not available:
        raise UserError("trainer.device is 'cuda' but PyTorch finds no CUDA device; use 'auto' or 'cpu'")
    if choice is Device.CPU or not available:
        return torch.device("cpu")
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)
