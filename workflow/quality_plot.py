"""The figure of a run's quality over its perspectives, with its regimes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ptychoflow.workflow.drawing import BLUE, GREEN, GREY, ORANGE, RED, as_svg, new_figure
from ptychoflow.workflow.monitoring_spans import draw_monitoring

LINES = (
    ("refreshed", "refreshed", BLUE, "-"),
    ("first_pass", "first pass", ORANGE, "-"),
    ("constant", "constant prediction", GREY, "--"),
)


def quality_plot(summary: Mapping[str, Any], metric: str, label: str) -> str | None:
    """Return a phase figure (`psnr_db` or `ssim`) per perspective, or None where fewer than two were scored.

    With regimes, it also shows where the run was monitoring, which perspectives did without ground truth, and the
    threshold that first passes have to meet.
    """
    figure, axes = new_figure("perspective", label)
    drawn = 0
    for name, title, colour, dash in LINES:
        rows = [row for row in summary["perspectives"] if row[name] and row[name][metric]["phase"] is not None]
        values = [row[name][metric]["phase"] for row in rows]
        axes.plot([row["index"] for row in rows], values, dash, color=colour, marker="o", ms=3, label=title)
        drawn = max(drawn, len(rows))
    if drawn < 2:
        return None
    _draw_regimes(axes, summary, metric)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return as_svg(figure, axes, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3)


def _draw_regimes(axes: Axes, summary: Mapping[str, Any], metric: str) -> None:
    regime = summary["regime"]
    draw_monitoring(axes, summary)
    threshold = (regime["thresholds"] or {}).get(metric)
    if threshold is not None:
        axes.axhline(threshold, color=GREEN, lw=1, ls=":", label="good enough")
    if skipped := regime["perspectives_skipped"]:
        along_axis = axes.get_xaxis_transform()
        axes.plot(
            skipped, [0.02] * len(skipped), "x", color=RED, ms=4, transform=along_axis, label="without ground truth"
        )
