"""torchrl's replay buffer on the work of one process: the same items inserted, the same number drawn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from ptychoflow.buffer import RehearsalBuffer
from ptychoflow.workflow.benchmarks.buffer_rank import Case, Figures, item_schema, random_batch

_Step = Callable[[bool], object]
"""Draws; inserts before, if asked to."""


def compare_with_torchrl(case: Case) -> Figures:
    """Milliseconds of a draw, and of an insertion and draw, in both buffers; ModuleNotFoundError without torchrl.

    Both store `case.items_per_rank` items in memory, and both are full before they are measured. The rounds alternate,
    so that other work on the machine hits both alike. `case.precision` must be float32, since torchrl cannot store
    unsigned 16-bit integers; it draws with replacement, overwrites the oldest items, and allocates every draw.
    """
    with RehearsalBuffer(
        item_schema(case.precision),
        capacity=case.items_per_rank,
        representatives=case.representatives,
        candidates=case.candidates,
        transport="local",
    ) as buffer:
        return _measure(case, _ours(buffer, case), _torchrl(case))


def _ours(buffer: RehearsalBuffer, case: Case) -> _Step:
    batch = random_batch(item_schema(case.precision), case.minibatch, torch.device("cpu"))
    while buffer.stats().size < case.items_per_rank:
        buffer.update(batch)
    buffer.take()

    def step(insert: bool) -> object:
        buffer.offer(batch if insert else None)
        return buffer.take()

    return step


def _torchrl(case: Case) -> _Step:
    from tensordict import TensorDict  # type: ignore[import-not-found]  # noqa: PLC0415  an optional dependency
    from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer  # type: ignore[import-not-found]  # noqa: PLC0415
    from torchrl.data.replay_buffers.samplers import RandomSampler  # type: ignore[import-not-found]  # noqa: PLC0415

    batch = random_batch(item_schema(case.precision), case.candidates, torch.device("cpu"))
    items = TensorDict(batch, batch_size=[case.candidates])
    replay = TensorDictReplayBuffer(
        storage=LazyTensorStorage(case.items_per_rank), sampler=RandomSampler(), batch_size=case.representatives
    )
    while len(replay) < case.items_per_rank:
        replay.extend(items)

    def step(insert: bool) -> object:
        if insert:
            replay.extend(items)
        return replay.sample()

    return step


def _measure(case: Case, ours: _Step, theirs: _Step) -> Figures:
    seconds: dict[str, list[float]] = {}
    for _ in range(case.draws):
        for name, insert in (("draw", False), ("draw_insert", True)):
            for whose, step in (("ours", ours), ("torchrl", theirs)):
                started = time.perf_counter()
                step(insert)
                seconds.setdefault(f"{whose}_{name}_ms", []).append(1e3 * (time.perf_counter() - started))
    figures = {name: statistics.median(values) for name, values in seconds.items()}
    return figures | {
        f"torchrl_over_ours_{name}": figures[f"torchrl_{name}_ms"] / figures[f"ours_{name}_ms"]
        for name in ("draw", "draw_insert")
    }
