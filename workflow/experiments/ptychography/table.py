"""The comparison as a table, for people on standard output and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ptychoflow.workflow.experiments.methods import Method
from ptychoflow.workflow.experiments.ptychography.results import Result, mean_and_spread

FILE = "table.md"
WIDTH = 200
CONSTANT = "constant prediction"
HEADINGS = (
    "method", "validation loss", "against incremental", "forgetting",
    "amplitude PSNR, dB", "phase PSNR, dB", "amplitude SSIM", "phase SSIM", "steps", "seconds",
)  # fmt: skip


def table_rows(results: dict[str, Any]) -> list[list[str]]:
    """Return the cells, a row per method and the constant prediction's, as mean ± spread over seeds."""
    strategies: dict[str, list[Result]] = results["strategies"]
    baseline = _final_loss(strategies.get(Method.INCREMENTAL.value, []))
    rows = [_row(name, found, baseline) for name, found in strategies.items()]
    constant = results["constant"]
    scores = [
        f"{constant[name][channel]:.{digits}f}" if constant[name] else "–"
        for name, digits in (("psnr_db", 2), ("ssim", 4))
        for channel in ("amplitude", "phase")
    ]
    return [*rows, [CONSTANT, f"{constant['validation_loss']:.4f}", "", "", *scores, "", ""]]


def _row(name: str, found: Sequence[Result], baseline: float | None) -> list[str]:
    loss = _final_loss(found)
    change = f"{100 * (loss / baseline - 1):+.1f} %" if loss is not None and baseline else "–"
    scores = [
        _cell(found, lambda result, name=name, channel=channel: _held_out(result, name, channel), digits)
        for name, digits in (("psnr_db", 2), ("ssim", 4))
        for channel in ("amplitude", "phase")
    ]
    return [
        name,
        _cell(found, lambda result: result["validation_loss"][-1], 4),
        "" if name == Method.INCREMENTAL else change,
        _cell(found, lambda result: result.get("forgetting"), 4),
        *scores,
        _cell(found, lambda result: result["steps"], 0),
        _cell(found, lambda result: result["seconds"], 0),
    ]


def _held_out(result: Result, name: str, channel: str) -> float | None:
    return result["held_out"][name][channel] if result["held_out"] else None


def _final_loss(found: Sequence[Result]) -> float | None:
    measured = mean_and_spread(found, lambda result: result["validation_loss"][-1]) if found else None
    return measured[0] if measured else None


def _cell(found: Sequence[Result], figure: Any, digits: int) -> str:
    measured = mean_and_spread(found, figure)
    if measured is None:
        return "–"
    mean, spread = measured
    return f"{mean:.{digits}f}" + (f" ± {spread:.{digits}f}" if len(found) > 1 else "")


def write_table(results: dict[str, Any], folder: Path) -> None:
    """Write the table as Markdown to the folder."""
    rows = [list(HEADINGS), ["---"] * len(HEADINGS), *table_rows(results)]
    text = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    (folder / FILE).write_text(text + "\n", encoding="utf-8")


def print_table(results: dict[str, Any]) -> None:
    """Print the table to standard output."""
    table = Table(title="held-out perspective, and validation loss over all perspectives after the last one")
    for heading in HEADINGS:
        table.add_column(heading, no_wrap=True)
    for row in table_rows(results):
        table.add_row(*row)
    Console(width=WIDTH).print(table)
