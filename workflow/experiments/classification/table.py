"""The results for people: one line per method."""

from __future__ import annotations

import sys
from statistics import fmean, stdev
from typing import Any

from rich.console import Console
from rich.table import Table

from ptychoflow.workflow.experiments.classification.cases import PLAIN, STRATEGIES, SWEEPS

Runs = list[dict[str, Any]]


def tell(content: dict[str, Any]) -> None:
    """Print means over the seeds, with standard deviations where there are several."""
    console = Console(file=sys.stdout)
    table = Table("", "seeds", "average top-1", "average top-5", "forgetting", "seconds", title="after the last task")
    for part in (STRATEGIES, PLAIN):
        for method, runs in content[part].items():
            _add(table, method if part == STRATEGIES else f"plain {method}", runs)
    for sweep in SWEEPS:
        runs = content["sweeps"].get(sweep, [])
        name = "transport" if sweep == "draws" else sweep
        for value in dict.fromkeys(run[name] for run in runs):
            _add(table, f"er, {name} {value}", [run for run in runs if run[name] == value])
    console.print(table)
    for target in content["targets"]:
        verdict = "met" if target["met"] else "missed"
        console.print(
            f"target {verdict}: {target['name']} = {target['value']:.3g} ({target['direction']} {target['target']:g})"
        )


def _add(table: Table, name: str, runs: Runs) -> None:
    columns = ("average_top1", "average_top5", "forgetting", "seconds")
    table.add_row(name, str(len(runs)), *(_spread([run[column] for run in runs]) for column in columns))


def _spread(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    return f"{fmean(known):.3f}" + (f" ± {stdev(known):.3f}" if len(known) > 1 else "")
