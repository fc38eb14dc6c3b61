"""Ours and a bare counterpart in short alternating rounds: what both suffer alike drops out of their ratio.

Each round measures both, the one first that came second before, and gives one ratio by the clock and one by processor
time. What is reported is the median of these ratios with its confidence bounds; a target is held against the lower one,
so that chance does not meet it. The clock tells what a user gets; processor time hardly depends on what else the
machine does.
"""

from __future__ import annotations

import ctypes
import math
import os
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ptychoflow.workflow.target import make_target

BOUND_ERROR = 0.05
"""How likely the true median is below `Spread.lower`, and how likely above `Spread.upper`, from five rounds on."""


class Took(NamedTuple):
    """What some work took."""

    items: float
    """Frames, samples, steps: what both sides count alike."""
    wall_s: float
    cpu_s: float
    """Processor time of everything that took part."""


class Spread(NamedTuple):
    """A median and its confidence bounds; with fewer than five values the bounds are the extremes."""

    median: float
    lower: float
    upper: float


@dataclass(frozen=True)
class PairedRounds:
    """What rounds of ours and of the bare counterpart gave; ratios are of speeds, ours to bare."""

    ours: Sequence[Took]
    bare: Sequence[Took]

    @property
    def by_clock(self) -> Spread:
        """Ours' items per second over the bare counterpart's."""
        return self._ratio(lambda took: took.wall_s / took.items)

    @property
    def by_processor(self) -> Spread:
        """Ours' items per second of processor time over the bare counterpart's."""
        return self._ratio(lambda took: took.cpu_s / took.items)

    def figures(self, item: str) -> dict[str, Any]:
        """Return plain JSON values for a case of a benchmark's `results`; `item` names what is counted, in plural."""
        return {
            "rounds": len(self.ours),
            f"ours_{item}_per_s": statistics.median(took.items / took.wall_s for took in self.ours),
            f"bare_{item}_per_s": statistics.median(took.items / took.wall_s for took in self.bare),
            f"ours_{item}_per_cpu_s": statistics.median(took.items / took.cpu_s for took in self.ours),
            f"bare_{item}_per_cpu_s": statistics.median(took.items / took.cpu_s for took in self.bare),
            "ratio": self.by_clock,
            "cpu_ratio": self.by_processor,
        }

    def targets(self, name: str, target: float) -> list[dict[str, Any]]:
        """Return the targets `<name>_ratio` and `<name>_cpu_ratio`: what the lower bounds must reach."""
        return [
            make_target(f"{name}_ratio", self.by_clock.lower, target, "min"),
            make_target(f"{name}_cpu_ratio", self.by_processor.lower, target, "min"),
        ]

    def _ratio(self, cost: Callable[[Took], float]) -> Spread:
        return spread([cost(bare) / cost(ours) for ours, bare in zip(self.ours, self.bare, strict=True)])


def measure_pairs(ours: Callable[[], Took], bare: Callable[[], Took], *, rounds: int) -> PairedRounds:
    """Measure both `rounds` times in turn, after one round that does not count. Blocks."""
    measured: dict[Callable[[], Took], list[Took]] = {ours: [], bare: []}
    order = [ours, bare]
    for _ in range(rounds + 1):
        for measure in order:
            measured[measure].append(measure())
        order.reverse()
    return PairedRounds(measured[ours][1:], measured[bare][1:])


def timed(work: Callable[[], object], *, items: float) -> Took:
    """Do `work` and return what it took of this process; other processes' time is not counted."""
    began_s, cpu_began_s = time.perf_counter(), time.process_time()
    work()
    return Took(items, time.perf_counter() - began_s, time.process_time() - cpu_began_s)


def spread(values: Iterable[float]) -> Spread:
    """Return the median of `values` with its confidence bounds, which hold whatever their distribution is.

    They are order statistics: each value lies below the true median with probability 1/2.
    """
    ordered = sorted(values)
    outside = _outside(len(ordered))
    return Spread(statistics.median(ordered), ordered[outside], ordered[-1 - outside])


def processor_time_s(pids: Iterable[int]) -> float:
    """Return the processor time that running processes have used so far, to the nanosecond, unlike `/proc` tells it."""
    return sum(time.clock_gettime(_processor_clock(pid)) for pid in pids)


def _outside(count: int) -> int:
    """Return how many of `count` ordered values lie outside of a bound."""
    outside, chance = 0, 0.5**count
    while chance + math.comb(count, outside + 1) * 0.5**count <= BOUND_ERROR:
        outside += 1
        chance += math.comb(count, outside) * 0.5**count
    return outside


def _processor_clock(pid: int) -> int:
    clock = ctypes.c_int()
    error = ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock))
    if error:
        raise OSError(error, os.strerror(error), f"process {pid}")
    return clock.value
