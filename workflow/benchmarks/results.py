"""How every benchmark tells what it measured: a table for people, JSON for machines."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ptychoflow.streaming.errors import UserError
from ptychoflow.workflow.benchmarks.paired_rounds import Spread
from ptychoflow.workflow.json_results import write_results

MISSED_STATUS = 1


class BenchmarkFailed(UserError):
    """A benchmark could not be carried out."""


def tell(measured: dict[str, Any], json_file: Path | None) -> int:
    """Print `results` and `targets`, write them as JSON if asked; return the exit status, 1 where a target is missed.

    Raises:
        UserError: the file cannot be written.
    """
    console = Console(file=sys.stdout)
    for case in measured["results"]:
        console.print(_table("measured", case))
    for target in measured["targets"]:
        console.print(_table("target met" if target["met"] else "target missed", target))
    write_results(measured, json_file)
    return 0 if all(target["met"] for target in measured["targets"]) else MISSED_STATUS


def _table(title: str, figures: dict[str, Any]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    for name, value in figures.items():
        table.add_row(name, _text(value))
    return table


def _text(value: object) -> str:
    match value:
        case float():
            return f"{value:,.4g}"
        case Spread():
            return f"{value.median:.3f} ({value.lower:.3f} to {value.upper:.3f})"
        case dict():
            return ", ".join(f"{name} {_text(one)}" for name, one in value.items())
        case _:
            return str(value)
