"""How many items each rank and each class may hold."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def rank_share(capacity: int, *, rank: int, world_size: int) -> int:
    """This rank's part of `capacity`, the total over all ranks; parts differ by one at most and sum to the total."""
    return capacity // world_size + (rank < capacity % world_size)


def class_quotas(capacity: int, *, classes: int, rank: int, world_size: int) -> npt.NDArray[np.int64]:
    """Quota of every class on this rank, shape (classes,), summing to the rank's share.

    Classes share equally. What does not divide goes to one class after the other, continuing from rank to rank, so that
    also over all ranks no class gets two more than another.
    """
    share = rank_share(capacity, rank=rank, world_size=world_size)
    quotas = np.full(classes, share // classes, dtype=np.int64)
    given_before = sum(rank_share(capacity, rank=lower, world_size=world_size) % classes for lower in range(rank))
    quotas[(given_before + np.arange(share % classes)) % classes] += 1
    return quotas


def items_in_budget(capacity_bytes: int, *, item_bytes: int, spare_rows: int, world_size: int) -> int:
    """Total capacity in items such that all ranks' stores, their spare rows included, fit in `capacity_bytes`."""
    per_rank = capacity_bytes // world_size // item_bytes - spare_rows
    if per_rank < 1:
        needed = (spare_rows + 1) * item_bytes * world_size
        raise ValueError(f"capacity_bytes {capacity_bytes} is too small: {world_size} rank(s) need {needed} at least.")
    return per_rank * world_size
