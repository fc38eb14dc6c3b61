"""`ptychoflow bench gpu`: the sections one after the other, each within its time, eight minutes in all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch

from ptychoflow.workflow.benchmarks.gpu import buffers, imaging, memory, ranks, rates, stitching, training
from ptychoflow.workflow.benchmarks.gpu.section import Check, Outcome, Setup, Status
from ptychoflow.workflow.benchmarks.gpu.worker import Worker
from ptychoflow.workflow.target import make_target

SECTIONS: Mapping[str, Check] = {
    "buffer": buffers.whole_items,
    "strategies": training.strategies,
    "skipped_steps": training.skipped_steps,
    "recorded_passes": training.recorded_passes,
    "one_rank": ranks.one_rank,
    "two_ranks": ranks.two_ranks,
    "edge_backends": imaging.backends,
    "new_weights_while_imaging": imaging.new_weights,
    "copies": memory.copies,
    "stitching": stitching.stitching,
    "training_rate": rates.training,
    "edge_rate": rates.edge,
}
TOTAL_S, SECTION_S = 460.0, 150.0
"""How long all sections may take, and each."""


def bench_gpu(
    device: torch.device, *, short: bool = False, tell: Callable[[str, Outcome], None] = lambda _name, _outcome: None
) -> dict[str, Any]:
    """Carry out all sections; what hangs or dies is a section that failed. Blocks for eight minutes at most.

    Args:
        device: CUDA, or the CPU for what needs no GPU.
        short: tiny sizes, a few seconds.
        tell: is called after every section.

    Returns:
        `results` with a case per section, `targets` with 1 for every section that passed and 0 for one that failed.
    """
    setup, until_s = Setup(device, short), time.monotonic() + TOTAL_S
    outcomes: dict[str, Outcome] = {}
    worker = Worker(setup)
    try:
        for name, check in SECTIONS.items():
            left_s = min(SECTION_S, until_s - time.monotonic())
            outcomes[name] = worker.carry_out(check, left_s)
            tell(name, outcomes[name])
    finally:
        worker.end()
    judged = {name: one for name, one in outcomes.items() if one.status is not Status.SKIPPED}
    return {
        "results": [{"section": name} | _case(outcome) for name, outcome in outcomes.items()],
        "targets": [
            make_target(f"gpu_{name}", float(outcome.status is Status.PASS), 1.0, "min")
            for name, outcome in judged.items()
        ],
    }


def _case(outcome: Outcome) -> dict[str, Any]:
    case = asdict(outcome)
    return {"status": case.pop("status").value, **case.pop("figures"), **case}
