"""`ptychoflow bench buffer`: what the buffer costs, beside memcpy and beside a training step without it, in one run."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import torch
from torch import distributed as dist

from ptychoflow.buffer.names import TransportName
from ptychoflow.streaming.device import Device, use_cuda
from ptychoflow.streaming.freed_memory import keep_freed_memory
from ptychoflow.streaming.private_folder import private_folder
from ptychoflow.trainer.network_interface import shared_interface
from ptychoflow.workflow.benchmarks.buffer_peer import compare_with_torchrl
from ptychoflow.workflow.benchmarks.buffer_rank import Case, Figures, Precision, measure, threads_per_rank
from ptychoflow.workflow.benchmarks.helper_process import HelperProcess
from ptychoflow.workflow.benchmarks.results import BenchmarkFailed
from ptychoflow.workflow.target import make_target

_log = logging.getLogger(__name__)
_SLOWDOWNS = tuple(f"step_{by}slowdown{bound}" for by in ("", "cpu_") for bound in ("", "_lower", "_upper"))
_WORST_RANK = ("idle_cpu_fraction", "waited_fraction_of_step", *_SLOWDOWNS, "step_with_ms", "waited_ms")


def bench_buffer(  # noqa: PLR0913  keyword-only settings, each with one meaning
    *,
    ranks: Sequence[int] = (2, 4),
    transports: Sequence[TransportName] = ("ucx", "tcp"),
    precisions: Sequence[Precision] = ("float32", "compact"),
    width: int = 32,
    train_crowded: bool = True,
    steps: int = 10,
    pairs: int = 15,
    draws: int = 200,
    scaling: bool = True,
    device: Literal["cuda", "cpu"] = "cpu",
    torchrl: bool = False,
    after_case: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Measure every combination with real processes on this host; minutes at the published network width of 32.

    `width`: of PtychoNN at 128 px, 0 leaves training out. `train_crowded`: train also where ranks outnumber cores.
    `steps`: training steps per block. `pairs`: of blocks with and without a buffer. `draws`: draws per figure.
    `scaling`: measure also how draws grow with ranks (1, 2, 4, 8) and with r. `torchrl`: compare with its replay
    buffer, in one process. `after_case`: called with what is measured so far. Returns `results`, one per case, and
    `targets`. Raises `UserError` where there is no such device, and `BenchmarkFailed` where a rank ended.
    """
    use_cuda(Device(device), found=torch.cuda.device_count(), setting="--device")
    cases = [
        Case(
            ranks=count,
            transport=transport,
            precision=precision,
            width=width if train_crowded or count <= _cores() else 0,
            steps=steps,
            pairs=pairs,
            draws=draws,
            device=device,
        )
        for transport in transports
        for count in ranks
        for precision in precisions
    ]
    if scaling:
        cases += _scaling_cases(transports[0], device)
    results = []
    for number, case in enumerate(cases, 1):
        _log.info("case %d of %d: %s", number, len(cases), _in_words(case))
        results.append(run_case(case))
        if after_case is not None:
            after_case({"results": results, "targets": _targets(results)})
    targets = _targets(results)
    if torchrl:
        alone = Case(1, "local", "float32", width=0, draws=draws)
        results.append(asdict(alone) | compare_with_torchrl(alone))
    return {"results": results, "targets": targets}


def _cores() -> int:
    return os.cpu_count() or 1


def _in_words(case: Case) -> str:
    beside = f"beside PtychoNN of width {case.width}" if case.width else "draws only"
    return f"{case.ranks} ranks, {case.transport}, {case.precision}, r {case.representatives}, {beside}"


def _scaling_cases(transport: TransportName, device: str) -> list[Case]:
    by_ranks = [Case(count, transport, "float32", width=0, draws=100, device=device) for count in (1, 2, 4, 8)]
    by_draw = [
        Case(2, transport, "float32", representatives=r, width=0, draws=100, device=device) for r in (6, 12, 48, 96)
    ]
    return by_ranks + by_draw


def run_case(case: Case) -> dict[str, Any]:
    """The case's parameters and figures: means over the ranks, but the worst rank where a rank waits for the worst."""
    receivers, processes = [], []
    with private_folder() as folder:
        for rank in range(case.ranks):
            receiver, sender = multiprocessing.Pipe(duplex=False)
            process = HelperProcess(_rank, case, rank, folder / "meeting", sender)
            process.start()
            sender.close()
            receivers.append(receiver)
            processes.append(process)
        figures = [_receive(receiver, rank, case) for rank, receiver in enumerate(receivers)]
        for process in processes:
            process.join()
    return asdict(case) | _over_ranks(figures)


def _receive(receiver: Connection, rank: int, case: Case) -> Figures:
    try:
        figures: Figures = receiver.recv()
    except EOFError:
        raise BenchmarkFailed(f"rank {rank} of {case} ended without a result; its traceback is above") from None
    return figures


def _rank(case: Case, rank: int, meeting: Path, sender: Connection) -> None:
    torch.set_num_threads(threads_per_rank(case.ranks))
    keep_freed_memory()  # as ranks do
    store = dist.FileStore(str(meeting))  # type: ignore[attr-defined]
    with shared_interface(None, store, rank=rank, world_size=case.ranks, on_one_host=True):
        dist.init_process_group("gloo", store=store, rank=rank, world_size=case.ranks)
        sender.send(measure(case, rank))
        dist.destroy_process_group()


def _over_ranks(figures: Sequence[Figures]) -> Figures:
    merged = {}
    for name in figures[0]:
        values = [rank_figures[name] for rank_figures in figures if name in rank_figures]
        merged[name] = max(values) if name in _WORST_RANK else sum(values) / len(values)
    return merged


def _targets(results: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The ratios that were promised, each the worst over the cases for which it was promised."""
    results = list(results)
    trained = [result for result in results if "step_slowdown" in result and result["ranks"] <= _cores()]
    pairs = [result for result in results if result["ranks"] == 2 and result["representatives"] == 24]
    ucx = [result for result in pairs if result["transport"] == "ucx"]
    return [
        *_target("waited_fraction_of_step", (result["waited_fraction_of_step"] for result in trained), 0.01, "max"),
        *_target("idle_cpu_fraction", (result["idle_cpu_fraction"] for result in results), 0.01, "max"),
        # what is missed by the clock alone, other programs take
        *(target for by in ("", "cpu_") for target in _beside_bare(by, trained, ucx)),
    ]


def _beside_bare(by: str, trained: Sequence[dict[str, Any]], ucx: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    insert, draw = f"draw_insert_{by}over_memcpy", f"draw_{by}over_memcpy_rate"
    return [
        *_target(f"step_{by}slowdown", (result[f"step_{by}slowdown"] for result in trained), 1.03, "max"),
        *_target(insert, (result[insert] for result in ucx), 3, "max"),
        *_target(f"ucx_{draw}", (result[draw] for result in ucx), 0.5, "min"),
    ]


def _target(
    name: str, values: Iterable[float], target: float, direction: Literal["min", "max"]
) -> list[dict[str, Any]]:
    """The worst of the values beside the target; nothing without any."""
    measured = list(values)
    worst = max if direction == "max" else min
    return [make_target(name, worst(measured), target, direction)] if measured else []
