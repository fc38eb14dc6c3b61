"""Which rank this is, and the key-value store through which the ranks of the group find each other."""

from __future__ import annotations

from dataclasses import dataclass

from torch import distributed as dist
from torch.distributed.distributed_c10d import Store


@dataclass(frozen=True)
class Membership:
    """This process within the group of ranks that share the buffer; `store` is None where there is one rank."""

    rank: int
    world_size: int
    store: Store | None


def membership(group: dist.ProcessGroup | None) -> Membership:
    """Membership in `group`, in the default process group if None, alone if there is none; ValueError if not in it."""
    if not (dist.is_available() and dist.is_initialized()):
        return Membership(rank=0, world_size=1, store=None)
    group = group or dist.group.WORLD
    rank = dist.get_rank(group)
    if group is None or rank < 0:
        raise ValueError("This process is not a member of the process group given to the buffer.")
    return Membership(rank=rank, world_size=dist.get_world_size(group), store=group.get_group_store())
