"""The figure of a run's score without ground truth over its perspectives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.ticker import MaxNLocator

from ptychoflow.workflow.drawing import BLUE, GREY, ORANGE, as_svg, new_figure
from ptychoflow.workflow.monitoring_spans import draw_monitoring

LINES = (("refreshed", "refreshed", BLUE), ("first_pass", "first pass", ORANGE))


def residual_plot(summary: Mapping[str, Any]) -> str | None:
    """Return the residual per perspective with the regimes, or None where fewer than two were scored.

    Perspectives without a reference are among them; those with one have a filled dot.
    """
    rows = summary["residuals"]["perspectives"] if summary["residuals"] else []
    referenced = {row["index"] for row in summary["perspectives"] if row["first_pass"] or row["refreshed"]}
    figure, axes = new_figure("perspective", "not explained of a frame, %")
    drawn = 0
    for name, title, colour in LINES:
        known = [(row["index"], row[name]["residual"]) for row in rows if row[name]]
        points = [(index, 100 * value) for index, value in known if value is not None]
        if not points:
            continue
        axes.plot(*zip(*points, strict=True), "-", color=colour, marker="o", ms=4, mfc="white", label=title)
        if with_reference := [point for point in points if point[0] in referenced]:
            axes.plot(*zip(*with_reference, strict=True), "o", color=colour, ms=4)
        drawn = max(drawn, len(points))
    if drawn < 2:
        return None
    axes.plot([], [], "o", color=GREY, ms=4, label="with a reference")
    draw_monitoring(axes, summary)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return as_svg(figure, axes, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=4)
