"""Over which perspectives a run was monitoring, in a figure of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from matplotlib.axes import Axes

from ptychoflow.streaming.events import Regime
from ptychoflow.workflow.drawing import PALE_GREEN


def draw_monitoring(axes: Axes, summary: Mapping[str, Any]) -> None:
    """Shade the perspectives, along x, over which the run was monitoring."""
    for number, (begin, end) in enumerate(monitoring_spans(summary)):
        axes.axvspan(begin - 0.5, end - 0.5, color=PALE_GREEN, zorder=0, label="monitoring" if number == 0 else None)


def monitoring_spans(summary: Mapping[str, Any]) -> Iterator[tuple[int, int]]:
    """Yield the perspectives (from, up to but without) over which the run was monitoring."""
    regime = summary["regime"]
    known = [row["index"] for row in summary["perspectives"]] + regime["perspectives_skipped"]
    begin, end = None, max(known, default=-1) + 1
    for change in regime["changes"]:
        at = min(change["perspective"], end)
        if change["regime"] == Regime.MONITORING and begin is None:
            begin = at
        elif change["regime"] == Regime.LEARNING and begin is not None:
            yield begin, at
            begin = None
    if begin is not None and begin < end:
        yield begin, end
