"""The results of all trainings as plain JSON values, and their means and spreads over seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean, stdev
from typing import Any

from ptychoflow.workflow.experiments.methods import Method
from ptychoflow.workflow.experiments.ptychography.case import Case
from ptychoflow.workflow.experiments.ptychography.settings import PtychographyExperiment
from ptychoflow.workflow.experiments.ptychography.transfer import (
    backward_transfer,
    forgetting,
    forward_transfer,
    means_over_seen,
)

Result = dict[str, Any]


def as_json(settings: PtychographyExperiment, cases: Sequence[Case], *, preset: str) -> dict[str, Any]:
    """Return what `results.json` holds; every case must be done."""
    strategies: dict[str, list[Result]] = {}
    for case in cases:
        strategies.setdefault(case.method.value, []).append(_result(case))
    streamed = [result for name, found in strategies.items() if name != Method.FROM_SCRATCH for result in found]
    return {
        "preset": preset,
        "constant": _constant(streamed or next(iter(strategies.values()))),
        "strategies": strategies,
        "settings": settings.model_dump(mode="json"),
    }


def _result(case: Case) -> Result:
    record = case.result()
    if record is None:
        raise ValueError(f"{case.folder} has no result")
    matrix, held_out = record["matrix"], record["held_out"]
    at_once = case.method is Method.FROM_SCRATCH
    rows = [matrix[-1]] if at_once else matrix
    result: Result = {
        "seed": case.seed,
        "validation_loss": [fmean(matrix[-1])] if at_once else means_over_seen(matrix),
        "validation_matrix": rows,
        "perspectives": record["perspectives"],
        "held_out": {name: held_out[name] for name in ("psnr_db", "ssim")} if held_out else None,
        "steps": record["steps"],
        "seconds": record["seconds"],
        "constant": {
            "validation_loss": fmean(record["constants"][-1]),
            "held_out": {name: held_out["constant"][name] for name in ("psnr_db", "ssim")} if held_out else None,
        },
    }
    if at_once:
        return result | {"epochs": len(matrix), "loss_after_epoch": [fmean(row) for row in matrix]}
    return result | {
        "forgetting": forgetting(matrix),
        "backward_transfer": backward_transfer(matrix),
        "forward_transfer": forward_transfer(matrix, record["untrained"]),
    }


def _constant(results: Sequence[Result]) -> dict[str, Any]:
    """Return the scores of always predicting the mean training patch; all methods on a stream share them."""
    losses = [result["constant"]["validation_loss"] for result in results]
    scores = [result["constant"]["held_out"] for result in results if result["constant"]["held_out"]]
    found: dict[str, Any] = {"validation_loss": fmean(losses)}
    for name in ("psnr_db", "ssim"):
        channels = ("amplitude", "phase")
        found[name] = (
            {channel: fmean(score[name][channel] for score in scores) for channel in channels} if scores else None
        )
    return found


def mean_and_spread(results: Sequence[Result], figure: Callable[[Result], float | None]) -> tuple[float, float] | None:
    """Return mean and standard deviation over seeds (0 for one seed); None where a result lacks the figure."""
    values = [value for value in map(figure, results) if value is not None]
    if len(values) < len(results):
        return None
    return fmean(values), stdev(values) if len(values) > 1 else 0.0
