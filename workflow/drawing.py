"""How the figures of a report look, and how they become SVG."""

from __future__ import annotations

import io
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8391a1",
    "axes.labelcolor": "#5a6878",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8ecf1",
    "xtick.color": "#5a6878",
    "ytick.color": "#5a6878",
    "legend.frameon": False,
    "hatch.linewidth": 0.6,
    "svg.hashsalt": "report",
}
BLUE, ORANGE, GREY, VIOLET, GREEN, RED = "#1f5fbf", "#d9822b", "#8391a1", "#b9a3e3", "#138a72", "#bd2c2c"
BLACK, BROWN, YELLOW = "#20262e", "#8a5a2b", "#c9a400"
LIGHT_BLUE, LIGHT_GREEN = "#7fb2f0", "#7cc68d"
PALE_GREEN = "#dff1ea"


def new_figure(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    """Return an empty figure with one pair of axes, in the report's style."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.2, 3.0), layout="constrained")
        axes = figure.add_subplot()
        axes.set(xlabel=x_label, ylabel=y_label)
    return figure, axes


def as_svg(figure: Figure, axes: Axes, **legend: Any) -> str:
    """Return the figure with a legend as an `svg` element; `legend` is passed on to matplotlib.

    Its letters are drawn as paths: who has it read aloud is told what the axes are.
    """
    file = io.StringIO()
    with mpl.rc_context(STYLE):
        axes.legend(**legend)
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    told = escape(f"Chart: {axes.get_ylabel()}, over {axes.get_xlabel()}")
    return f'<svg role="img" aria-label="{told}"' + text[text.index("<svg") + len("<svg") :]
