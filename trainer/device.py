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

from ptychoflow.streaming.device import use_cuda
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.freed_memory import keep_freed_memory
from ptychoflow.trainer.meeting import MEETING_VARIABLE, agree_on_start, is_done, note_done
from ptychoflow.trainer.models.arithmetic import resolve
from ptychoflow.trainer.models.precision import Precision
from ptychoflow.trainer.network_interface import shared_interface
from ptychoflow.trainer.settings import LearningSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rank:
    """One process of the trainer."""

    rank: int
    world_size: int
    device: torch.device
    precision: Precision
    """FLOAT32 or BFLOAT16."""
    meeting: Store | None = None
    """Where ranks meet, under torchrun those of all starts; on one host the launcher sees to what is left of them."""

    @property
    def was_done(self) -> bool:
        """Whether ranks before these had noted that all is done."""
        return self.meeting is not None and is_done(self.meeting)

    def note_done(self) -> None:
        """Note that all is done, for ranks that are started after this one was killed on its way out."""
        if self.meeting is not None:
            note_done(self.meeting)


@contextmanager
def join_ranks(settings: LearningSettings, *, interface: str | None = None) -> Iterator[Rank]:
    """Join the process group that torchrun's environment describes, or stay alone without one.

    Blocks until all ranks have come. CPU tensors travel by gloo, CUDA tensors by NCCL, or by gloo where ranks share a
    GPU.

    Args:
        settings: device, precision and threads.
        interface: `network.interface`; ranks that are all on this host use loopback without it.

    Raises:
        UserError: a GPU is asked for and there is none, some ranks have one and others do not, or this host has no such
            interface.
    """
    local_rank, local_ranks = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    place = _place(settings, local_rank=local_rank, local_ranks=local_ranks)
    torch.set_num_threads(settings.threads or max(1, len(os.sched_getaffinity(0)) // local_ranks))
    keep_freed_memory()
    with ExitStack() as stack:
        distributed = "RANK" in os.environ and "WORLD_SIZE" in os.environ
        if distributed:
            meeting, own_rank, world_size = _meeting_place()
            start = agree_on_start(meeting, rank=own_rank, world_size=world_size)
            store = PrefixStore(f"start-{start}", meeting)
            on_one_host = local_ranks == world_size
            stack.enter_context(
                shared_interface(interface, store, rank=own_rank, world_size=world_size, on_one_host=on_one_host)
            )
            backend = _backend(place, store, rank=own_rank, world_size=world_size)
            dist.init_process_group(backend, store=store, rank=own_rank, world_size=world_size)
            stack.callback(dist.destroy_process_group)
        rank = Rank(
            rank=dist.get_rank() if distributed else 0,
            world_size=dist.get_world_size() if distributed else 1,
            device=place.device,
            precision=resolve(settings.precision, place.device),
            meeting=meeting if distributed else None,
        )
        log.info(
            "rank %d of %d on %s, %s, %d threads",
            rank.rank,
            rank.world_size,
            rank.device,
            rank.precision,
            torch.get_num_threads(),
        )
        yield rank


def _meeting_place() -> tuple[Store, int, int]:
    """Return the store where ranks meet, the own rank, and the number of ranks.

    It is the file that the one who started the ranks names, else the one that torchrun names.
    """
    file = os.environ.get(MEETING_VARIABLE)
    if file is None:
        store, rank, world_size = next(rendezvous("env://"))
    else:
        store = dist.FileStore(file)  # type: ignore[attr-defined]
        rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    return store, rank, world_size


@dataclass(frozen=True)
class _Place:
    """Where a rank computes."""

    device: torch.device
    shared: bool = False
    """Whether ranks of this host share its GPU."""

    @property
    def kind(self) -> str:
        """In a word, for the other ranks."""
        return "shared GPU" if self.shared else "CPU" if self.device.type == "cpu" else "GPU"


def _place(settings: LearningSettings, *, local_rank: int, local_ranks: int) -> _Place:
    found = torch.cuda.device_count()
    if not use_cuda(settings.device, found=found, setting=f"{settings.SECTION}.device"):
        return _Place(torch.device("cpu"))
    usable = found - settings.first_gpu
    if usable <= 0:
        raise UserError(
            f"{settings.SECTION}.first_gpu = {settings.first_gpu}, but this host has {found} GPUs, counted from 0"
        )
    if local_ranks > usable and local_rank == 0:
        log.warning(
            "%d ranks share %d GPUs: gradients travel through the host's memory, which is slower",
            local_ranks,
            usable,
        )
    number = settings.first_gpu + local_rank % usable
    torch.cuda.set_device(number)
    return _Place(torch.device("cuda", number), shared=local_ranks > usable)


def _backend(place: _Place, store: Store, *, rank: int, world_size: int) -> str:
    """Return what carries tensors between ranks: NCCL between GPUs, unless ranks share some, which it refuses.

    Blocks until all ranks have said where they compute.
    """
    store.set(f"place/{rank}", place.kind)
    kinds = [store.get(f"place/{other}").decode() for other in range(world_size)]
    if "CPU" in kinds:
        if len(set(kinds)) > 1:
            where = ", ".join(f"rank {other}: {kind}" for other, kind in enumerate(kinds))
            raise UserError(f'all ranks train on GPUs or none does, but {where}; set trainer.device to "cpu" or "cuda"')
        return "gloo"
    return "cpu:gloo,cuda:gloo" if "shared GPU" in kinds else "cpu:gloo,cuda:nccl"
