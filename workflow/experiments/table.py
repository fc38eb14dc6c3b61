"""The results for people: one line per method, as mean ± standard deviation over the seeds."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rich.console import Console
from rich.table import Table

from ptychoflow.streaming.durable_file import write_durably

Run = dict[str, Any]
Runs = Sequence[Run]
Cell = Callable[[Runs], str]
WIDTH = 200
UNKNOWN = "–"


@dataclass(frozen=True)
class ResultTable:
    """What is shown of an experiment."""

    title: str
    columns: dict[str, Cell]
    """What each column, by its heading, shows of the runs of one line."""
    lines: Sequence[tuple[str, Runs]]
    """Name and runs, which differ in their seeds."""
    baselines: Sequence[Sequence[str]] = ()
    """Further lines, cell by cell."""
    remarks: Sequence[str] = field(default=())
    """Printed below."""

    def rows(self) -> list[list[str]]:
        """Return the cells."""
        lines = [[name, *(cell(runs) for cell in self.columns.values())] for name, runs in self.lines]
        return [*lines, *map(list, self.baselines)]

    def print(self) -> None:
        """Print to standard output."""
        console = Console(file=sys.stdout, width=WIDTH)
        table = Table(title=self.title)
        table.add_column("", no_wrap=True)
        for heading in self.columns:
            table.add_column(heading)
        for row in self.rows():
            table.add_row(*row)
        console.print(table)
        for remark in self.remarks:
            console.print(remark, markup=False)

    def write(self, file: Path) -> None:
        """Write as Markdown. Raises OSError."""
        headings = ["method", *self.columns]
        rows = [headings, ["---"] * len(headings), *self.rows()]
        write_durably(file, "".join("| " + " | ".join(row) + " |\n" for row in rows))


def mean_and_spread(runs: Runs, figure: Callable[[Run], float | None]) -> tuple[float, float] | None:
    """Return mean and standard deviation over seeds (0 for one seed); None where a run lacks the figure."""
    values = [value for value in map(figure, runs) if value is not None]
    if not values or len(values) < len(runs):
        return None
    return fmean(values), stdev(values) if len(values) > 1 else 0.0


def spread(figure: Callable[[Run], float | None], digits: int) -> Cell:
    """Return what shows a figure of the runs with so many digits after the point."""

    def cell(runs: Runs) -> str:
        measured = mean_and_spread(runs, figure)
        if measured is None:
            return UNKNOWN
        mean, deviation = measured
        return f"{mean:.{digits}f}" + (f" ± {deviation:.{digits}f}" if len(runs) > 1 else "")

    return cell
