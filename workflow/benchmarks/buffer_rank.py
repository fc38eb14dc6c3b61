"""What one rank of the benchmark measures."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import distributed as dist

from ptychoflow.buffer import Field, RehearsalBuffer, Schema
from ptychoflow.buffer.memory import ByteRows, byte_rows
from ptychoflow.buffer.names import TransportName
from ptychoflow.buffer.sampling import draw_positions
from ptychoflow.workflow.benchmarks.buffer_step import Tensors, TrainStep, make_train_step
from ptychoflow.workflow.benchmarks.paired_rounds import Took, spread

Precision = Literal["float32", "compact"]
_PIXELS = 128
_ROUNDS = 5
IDLE_WINDOWS, IDLE_WINDOW_S = 5, 0.5
_BOUNDS = ("", "_lower", "_upper")
"""Of a median, as `paired_rounds.spread` gives it."""


@dataclass(frozen=True)
class Case:
    """One setting that is measured."""

    ranks: int
    transport: TransportName
    precision: Precision
    representatives: int = 24
    candidates: int = 14
    minibatch: int = 16
    items_per_rank: int = 500
    width: int = 32
    """Width of PtychoNN; 0 leaves the training steps out."""
    steps: int = 10
    """Training steps in a block; blocks with and without a buffer come in pairs."""
    pairs: int = 15
    """Pairs of such blocks; every other one begins with the buffer."""
    draws: int = 200
    device: str = "cpu"


Figures = dict[str, float]


def item_schema(precision: Precision) -> Schema:
    """Diffraction, ground truth and activations of one sample: 320 KiB in float32, 160 KiB compact."""
    counts, values = ("float32", "float32") if precision == "float32" else ("uint16", "float16")
    shape = (1, _PIXELS, _PIXELS)
    return Schema(
        diffraction=Field(shape, counts),  # type: ignore[arg-type]
        **{
            name: Field(shape, values)  # type: ignore[arg-type]
            for name in ("amplitude", "phase", "activation_amplitude", "activation_phase")
        },
    )


def measure(case: Case, rank: int) -> Figures:
    """Everything this rank measures for the case; collective over the default process group."""
    schema = item_schema(case.precision)
    minibatch = random_batch(schema, case.minibatch, torch.device(case.device))
    with RehearsalBuffer(
        schema,
        capacity=case.ranks * case.items_per_rank,
        representatives=case.representatives,
        candidates=case.candidates,
        transport=case.transport,
        device=case.device,
    ) as buffer:
        while buffer.stats().size < case.items_per_rank:
            buffer.update(minibatch)
        _meet()
        figures = _idle(buffer)
        _meet()
        if rank == 0:
            figures |= _beside_memcpy(buffer, minibatch, replace(case, draws=-(-case.draws // _ROUNDS)))
        _meet()
        figures |= _draws(buffer, None, case, "draw_together")
        _meet()
        if case.width:
            figures |= _training(buffer, minibatch, case)
        _meet()
    return figures


def random_batch(schema: Schema, count: int, device: torch.device) -> Tensors:
    """`count` items of random numbers, the same every time."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: (torch.rand(count, *field.shape, generator=generator) * 100).to(device, field.torch_dtype)
        for name, field in schema.items()
    }


def _meet() -> None:
    if dist.is_initialized():
        dist.barrier()


def _beside_memcpy(buffer: RehearsalBuffer, minibatch: Tensors, case: Case) -> Figures:
    """Draws while the other ranks are idle, in rounds with memcpy, since the speed of memory changes by the second."""
    gather = _plain_gather(item_schema(case.precision), case)
    rounds = [
        _memcpy(gather, case)
        | _draws(buffer, None, case, "draw_alone")
        | _draws(buffer, minibatch, case, "draw_insert_alone")
        for _ in range(_ROUNDS)
    ]
    # by the clock, and by processor time, all threads' together
    ratios = [_ratios(one, "") | _ratios(one, "cpu_") for one in rounds]
    return _medians(rounds) | _medians(ratios)


def _ratios(one: Figures, by: str) -> Figures:
    return {
        f"draw_{by}over_memcpy_rate": one["memcpy_ms"] / one[f"draw_alone_{by}ms"],
        f"draw_insert_{by}over_memcpy": one[f"draw_insert_alone_{by}ms"] / one["memcpy_ms"],
    }


def _medians(rounds: Sequence[Figures]) -> Figures:
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}


def _plain_gather(schema: Schema, case: Case) -> Callable[[], None]:
    """Copies as many random items as a draw has, between ordinary tensors."""
    rng = np.random.default_rng(0)
    stored = [_plain_rows(case.items_per_rank, field.nbytes) for field in schema.values()]
    targets = [_plain_rows(case.representatives, field.nbytes) for field in schema.values()]

    def gather() -> None:
        chosen = draw_positions(case.items_per_rank, case.representatives, rng)
        for source, target in zip(stored, targets, strict=True):
            np.take(source, chosen, axis=0, out=target, mode="clip")

    return gather


def _memcpy(gather: Callable[[], None], case: Case) -> Figures:
    seconds = _median_seconds(gather, case.draws)
    nbytes = case.representatives * item_schema(case.precision).nbytes
    return {"memcpy_ms": 1e3 * seconds, "memcpy_gb_per_s": nbytes / seconds / 1e9}


def _plain_rows(count: int, nbytes: int) -> ByteRows:
    return byte_rows(torch.zeros(count, nbytes, dtype=torch.uint8))


def _idle(buffer: RehearsalBuffer) -> Figures:
    """Processor time of this process while nobody uses the buffer, the median of several windows."""
    buffer.update(None)
    buffer.take()
    _meet()
    used = []
    for _ in range(IDLE_WINDOWS):
        before = time.process_time()
        time.sleep(IDLE_WINDOW_S)
        used.append((time.process_time() - before) / IDLE_WINDOW_S)
    return {"idle_cpu_fraction": statistics.median(used)}


def _draws(buffer: RehearsalBuffer, offered: Tensors | None, case: Case, name: str) -> Figures:
    """Draws one after the other, each waited for; with insertion if there is something to offer."""

    def draw() -> None:
        buffer.offer(offered)
        buffer.take()

    buffer.offer(None)
    buffer.take()
    before, used = buffer.stats(), time.process_time()
    seconds = _median_seconds(draw, case.draws)
    drawn_bytes = case.representatives * item_schema(case.precision).nbytes
    return {
        f"{name}_ms": 1e3 * seconds,
        f"{name}_gb_per_s": drawn_bytes / seconds / 1e9,
        f"{name}_cpu_ms": 1e3 * (time.process_time() - used) / case.draws,
        f"{name}_background_ms": 1e3 * (buffer.stats().background_s - before.background_s) / case.draws,
    }


def _training(buffer: RehearsalBuffer, minibatch: Tensors, case: Case) -> Figures:
    """Steps without a buffer, on an equally large batch, beside steps with it."""
    step = make_train_step(case.width, torch.device(case.device), pixels=_PIXELS)
    buffer.offer(None)
    fixed = {name: tensor.clone() for name, tensor in buffer.take().tensors.items()}
    buffer.offer(None)
    works: dict[bool, Callable[[], None]] = {
        False: lambda: step(minibatch, fixed, lambda _: None),
        True: lambda: _rehearse(buffer, step, minibatch),
    }
    for work in works.values():
        _timed_steps(work, 1, case)
    before = buffer.stats()
    pairs = [_timed_pair(works, case, buffer_first=bool(number % 2)) for number in range(case.pairs)]
    after = buffer.stats()
    slowdown = spread(pair[True].wall_s / pair[False].wall_s for pair in pairs)
    cpu_slowdown = spread(pair[True].cpu_s / pair[False].cpu_s for pair in pairs)
    steps = case.pairs * case.steps
    figures = {
        "step_without_ms": 1e3 * statistics.median(pair[False].wall_s for pair in pairs),
        "step_with_ms": 1e3 * statistics.median(pair[True].wall_s for pair in pairs),
        "step_without_cpu_ms": 1e3 * statistics.median(pair[False].cpu_s for pair in pairs),
        "step_with_cpu_ms": 1e3 * statistics.median(pair[True].cpu_s for pair in pairs),
        **{f"step_slowdown{which}": ratio for which, ratio in zip(_BOUNDS, slowdown, strict=True)},
        # what other programs on the same cores do to the clock is not ours
        **{f"step_cpu_slowdown{which}": ratio for which, ratio in zip(_BOUNDS, cpu_slowdown, strict=True)},
        "waited_ms": 1e3 * (after.waited_s - before.waited_s) / steps,
        "offer_ms": 1e3 * (after.offered_s - before.offered_s) / steps,
        "populate_ms": 1e3 * (after.populate_s - before.populate_s) / steps,
        "augment_ms": 1e3 * (after.augment_s - before.augment_s) / steps,
        "background_cpu_ms": 1e3 * (after.background_cpu_s - before.background_cpu_s) / steps,
    }
    background_ms = figures["populate_ms"] + figures["augment_ms"]
    return figures | {
        "background_ms": background_ms,
        "hidden_fraction": 1 - figures["waited_ms"] / background_ms,
        "draw_beside_training_gb_per_s": case.representatives
        * item_schema(case.precision).nbytes
        / (1e6 * figures["augment_ms"]),
        "waited_fraction_of_step": figures["waited_ms"] / figures["step_with_ms"],
    }


def _timed_pair(works: Mapping[bool, Callable[[], None]], case: Case, *, buffer_first: bool) -> dict[bool, Took]:
    """The median step by the clock, and the mean one by processor time, by whether the buffer was used."""
    found = {}
    for with_buffer in (buffer_first, not buffer_first):
        _meet()
        used = time.process_time()
        seconds = statistics.median(_timed_steps(works[with_buffer], case.steps, case))
        found[with_buffer] = Took(1, seconds, (time.process_time() - used) / case.steps)
    return found


def _rehearse(buffer: RehearsalBuffer, step: TrainStep, minibatch: Tensors) -> None:
    step(minibatch, buffer.take().tensors, buffer.offer)


def _timed_steps(step: Callable[[], None], count: int, case: Case) -> list[float]:
    return [_seconds(step, case.device) for _ in range(count)]


def _seconds(work: Callable[[], None], device: str = "cpu") -> float:
    started = time.perf_counter()
    work()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _median_seconds(work: Callable[[], None], count: int) -> float:
    work()
    return statistics.median(_seconds(work) for _ in range(count))


def threads_per_rank(ranks: int) -> int:
    """The cores of this host shared among its ranks."""
    return max(1, (os.cpu_count() or 1) // ranks)
