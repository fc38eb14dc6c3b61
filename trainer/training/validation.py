"""Which validation samples an evaluation uses."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.distributed as dist

from ptychoflow.streaming.codec import Arrays

LEAST_PER_PERSPECTIVE = 4


def at_most(samples: Mapping[int, Arrays], limit: int | None) -> Mapping[int, Arrays]:
    """Return about `limit` samples, shared evenly by the perspectives and spread over each; None returns all.

    Every perspective keeps at least four.
    """
    if limit is None or not samples:
        return samples
    share = max(LEAST_PER_PERSPECTIVE, limit // len(samples))
    return {perspective: _spread(arrays, share) for perspective, arrays in samples.items()}


def perspectives_on_any_rank(samples: Mapping[int, Arrays], device: torch.device) -> int:
    """Return one more than the largest perspective on any rank. Collective."""
    largest = torch.tensor([max(samples, default=-1) + 1], device=device)
    if dist.is_initialized():
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return int(largest.item())


def _spread(arrays: Arrays, count: int) -> Arrays:
    available = len(next(iter(arrays.values())))
    rows = np.linspace(0, available - 1, min(count, available)).round().astype(int)
    return {name: array[rows] for name, array in arrays.items()}
