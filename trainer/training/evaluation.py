"""Validation by perspective, over the validation samples of all ranks, beside a prediction without a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from ptychoflow.streaming.codec import Arrays

LEAST_PER_PERSPECTIVE = 4


@dataclass(frozen=True)
class Evaluation:
    """Losses by perspective, which may be a task; those without a validation sample are left out."""

    per_perspective: dict[int, float]
    constant_per_perspective: dict[int, float]
    """The same for always predicting the same: the mean training patch, or that classes are as likely as they are."""

    @property
    def mean_over_seen(self) -> float:
        """Mean over perspectives."""
        return fmean(self.per_perspective.values())

    @property
    def constant(self) -> float:
        """The same mean for always predicting the same."""
        return fmean(self.constant_per_perspective.values())


def means_by_perspective(
    samples: Mapping[int, Arrays],
    measure: Callable[[dict[str, Tensor]], Tensor],
    *,
    figures: int,
    limit: int | None,
    batch_size: int,
    device: torch.device,
) -> dict[int, list[float]] | None:
    """Return the mean figures of the samples of all ranks, or None if no rank has one. Collective.

    Args:
        samples: this rank's validation samples by perspective.
        measure: returns the sums (figures,) over some samples on `device`.
        figures: their number.
        limit: samples used on this rank at most, so that the stream is not held up; None uses all. Every perspective
            keeps at least four, spread evenly over it.
        batch_size: samples measured at a time.
        device: where the network is.
    """
    sums = torch.zeros(_perspectives_on_any_rank(samples, device), figures + 1, dtype=torch.float64, device=device)
    for perspective, arrays in _at_most(samples, limit).items():
        count = _length(arrays)
        for start in range(0, count, batch_size):
            rows = slice(start, start + batch_size)
            part = {name: torch.from_numpy(array[rows]).to(device) for name, array in arrays.items()}
            sums[perspective, :-1] += measure(part)
        sums[perspective, -1] = count
    if dist.is_initialized():
        dist.all_reduce(sums)
    seen = (sums[:, -1] > 0).nonzero().flatten().tolist()
    means = (sums[:, :-1] / sums[:, -1:].clamp(min=1)).tolist()
    return {perspective: means[perspective] for perspective in seen} or None


def _at_most(samples: Mapping[int, Arrays], limit: int | None) -> Mapping[int, Arrays]:
    """Return about `limit` samples, shared evenly by the perspectives and spread over each; None returns all."""
    if limit is None or not samples:
        return samples
    share = max(LEAST_PER_PERSPECTIVE, limit // len(samples))
    rows = {perspective: spread_evenly(_length(arrays), share) for perspective, arrays in samples.items()}
    return {
        perspective: {name: array[rows[perspective]] for name, array in arrays.items()}
        for perspective, arrays in samples.items()
    }


def _perspectives_on_any_rank(samples: Mapping[int, Arrays], device: torch.device) -> int:
    """Return one more than the largest perspective on any rank. Collective."""
    largest = torch.tensor([max(samples, default=-1) + 1], device=device)
    if dist.is_initialized():
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return int(largest.item())


def spread_evenly(available: int, at_most: int) -> npt.NDArray[np.int64]:
    """Return `at_most` of the numbers from 0 to `available` - 1, the first and the last among them; all if fewer."""
    return np.linspace(0, available - 1, min(at_most, available)).round().astype(np.int64)


def _length(arrays: Arrays) -> int:
    return len(next(iter(arrays.values())))
