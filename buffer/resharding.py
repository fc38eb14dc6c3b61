"""Which rank each item of a checkpoint goes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ptychoflow.buffer.index import Ints


@dataclass(frozen=True)
class Assignment:
    """All items of all shards: which shard and row each comes from and which rank it goes to; all shapes (items,)."""

    ids: Ints
    shards: Ints
    rows: Ints
    homes: Ints


def keep_ranks(shards: Sequence[Mapping[str, Any]]) -> Assignment:
    """Every item stays on its rank."""
    ids, source, rows = _all_items(shards)
    return Assignment(ids, source, rows, source)


def reshard(shards: Sequence[Mapping[str, Any]], room: Ints) -> Assignment:
    """Every class's items, oldest first, go in turn to all ranks that have room for one more of it.

    `room`: items per rank and class, (ranks, classes), or (ranks, 1) if all classes share the room.
    """
    ids, source, rows = _all_items(shards)
    labels = torch.cat([shard["labels"] for shard in shards]).numpy()
    by_age = np.argsort(ids, kind="stable")
    groups = labels[by_age] if room.shape[1] > 1 else np.zeros(len(ids), np.int64)
    homes = np.zeros(len(ids), np.int64)
    for group in np.unique(groups).tolist():
        members = np.flatnonzero(groups == group)
        homes[members] = _turns(room[:, group], len(members))
    return Assignment(ids[by_age], source[by_age], rows[by_age], homes)


def _turns(room: Ints, count: int) -> Ints:
    """`count` ranks in turn, leaving out those whose room is used up."""
    rounds = [np.flatnonzero(room > turn) for turn in range(int(room.max()))]
    return np.concatenate(rounds)[:count]


def _all_items(shards: Sequence[Mapping[str, Any]]) -> tuple[Ints, Ints, Ints]:
    sizes = [len(shard["ids"]) for shard in shards]
    ids: Ints = torch.cat([shard["ids"] for shard in shards]).numpy()
    return ids, np.repeat(np.arange(len(shards)), sizes), np.concatenate([np.arange(size) for size in sizes])
