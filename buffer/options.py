"""The numbers that define a buffer; the same on every rank."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral
from typing import get_args

from ptychoflow.buffer.capacity import items_in_budget
from ptychoflow.buffer.names import DrawName


@dataclass(frozen=True)
class Options:
    """Settings that hold on every rank; ValueError says which cannot work."""

    capacity: int
    """Items over all ranks."""
    representatives: int
    candidates: int
    classes: int
    seed: int
    timeout_s: float
    world_size: int
    draw: DrawName = "uniform"
    score_exponent: float = 1.0
    quotas: bool = True
    """Every class has room of its own."""

    def __post_init__(self) -> None:
        self._require_whole_numbers()
        for name in ("representatives", "candidates", "classes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if not (math.isfinite(self.timeout_s) and self.timeout_s > 0):
            raise ValueError(f"timeout_s is {self.timeout_s}; it must be a positive number of seconds.")
        if self.draw not in get_args(DrawName):
            raise ValueError(f"Draw {self.draw!r} is unknown; use one of {', '.join(get_args(DrawName))}.")
        if not (math.isfinite(self.score_exponent) and self.score_exponent > 0):
            raise ValueError(f"score_exponent is {self.score_exponent}; it must be a positive number.")
        if self.capacity < self.world_size:
            raise ValueError(
                f"capacity {self.capacity} is smaller than the number of ranks, {self.world_size}: "
                "every rank needs room for one item."
            )
        if self.quotas and self.capacity < self.world_size * self.classes:
            raise ValueError(
                f"capacity {self.capacity} is smaller than ranks x classes = {self.world_size} x {self.classes}: "
                "every class needs room for one item on every rank."
            )
        if self.representatives > self.capacity:
            raise ValueError(f"representatives {self.representatives} is larger than capacity {self.capacity}.")

    def _require_whole_numbers(self) -> None:
        for name in ("capacity", "representatives", "candidates", "classes", "seed"):
            if not isinstance(getattr(self, name), Integral):
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be a whole number.")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; it must not be negative.")

    @property
    def spare_rows(self) -> int:
        """Rows of each store beyond its capacity: two offers can be on their way before a third must wait."""
        return 2 * self.candidates


def total_capacity(
    capacity: int | None, capacity_bytes: int | None, *, item_bytes: int, candidates: int, world_size: int
) -> int:
    """The capacity in items, whichever way it was given; ValueError unless it was given in exactly one way."""
    if capacity is not None and capacity_bytes is None:
        return capacity
    if capacity_bytes is not None and capacity is None:
        return items_in_budget(capacity_bytes, item_bytes=item_bytes, spare_rows=2 * candidates, world_size=world_size)
    raise ValueError("Give either capacity (items over all ranks) or capacity_bytes (bytes over all ranks).")
