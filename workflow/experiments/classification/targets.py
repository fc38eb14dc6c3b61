"""What the results of an experiment on images must show."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from ptychoflow.workflow.experiments.case import STRATEGIES
from ptychoflow.workflow.experiments.classification.case import PLAIN
from ptychoflow.workflow.experiments.classification.settings import ClassificationExperiment
from ptychoflow.workflow.experiments.methods import Method
from ptychoflow.workflow.experiments.table import Runs
from ptychoflow.workflow.target import make_target

REHEARSAL_GAIN = 3.0
"""Average top-1 of rehearsal over that of incremental training, at least."""
COST_ALLOWED = 1.1
"""Time of rehearsal over what its samples cost, at most."""


def targets(content: dict[str, Any], config: ClassificationExperiment) -> list[dict[str, Any]]:
    """Return what rehearsal must reach beside incremental training and beside its plain form, where both are there."""
    runs, plain = content[STRATEGIES], content[PLAIN]
    incremental = runs.get(Method.INCREMENTAL)
    made = []
    for method in (Method.ER, Method.DERPP):
        if method in runs and incremental:
            reached, beside = (_mean(found, "average_top1") for found in (runs[method], incremental))
            made.append(_ratio(f"{method}_gain_over_incremental", reached, beside, least=REHEARSAL_GAIN))
        ranks = {run["ranks"] for run in runs.get(method, [])}
        alike = [run["average_top1"] for run in plain.get(method, []) if run["ranks"] in ranks]
        if alike:
            worst = min(_mean(runs[method], "average_top1"), max(run["average_top1"] for run in runs[method]))
            made.append(_ratio(f"{method}_mean_over_plain_least", worst, min(alike), least=1.0))
    if Method.ER in runs and incremental:
        training = config.training
        cost = (training.batch_size + training.buffer.representatives) / training.batch_size
        ratio = _mean(runs[Method.ER], "seconds") / _mean(incremental, "seconds")
        made.append(make_target("er_time_over_cost_of_its_samples", ratio / cost, COST_ALLOWED, "max"))
    return made


def _ratio(name: str, reached: float, beside: float, *, least: float) -> dict[str, Any]:
    """Return the target that an accuracy is `least` times another; beside none right it has no value (None)."""
    if beside > 0:
        return make_target(name, reached / beside, least, "min")
    return make_target(name, 0.0, least, "min") | {"value": None, "met": reached > 0}


def _mean(runs: Runs, name: str) -> float:
    return fmean(run[name] for run in runs)
