"""The curves of a report, drawn as SVG."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dashboard.series import Series, SeriesCursor
from streaming.events import Telemetry, TrainingStep, ValidationLoss

Rows = Sequence[Mapping[str, Any]]

CURVE_POINTS = 600
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8391a1",
    "axes.labelcolor": "#5a6878",
    "axes.grid": True,
    "grid.color": "#e8ecf1",
    "xtick.color": "#5a6878",
    "ytick.color": "#5a6878",
    "legend.frameon": False,
    "svg.hashsalt": "report",
}
REFRESHED, FIRST_PASS, CONSTANT, TRAINING, VALIDATION = "#1f5fbf", "#d9822b", "#8391a1", "#b9a3e3", "#138a72"


@dataclass
class Curves:
    """What of the telemetry is drawn: losses over the training step."""

    training: Series = field(default_factory=lambda: Series(["step", "loss"], capacity=CURVE_POINTS))
    validation: list[ValidationLoss] = field(default_factory=list)


def collect_curves(events: Iterable[Telemetry]) -> Curves:
    """Reduce the telemetry of a run to its curves; training losses are averaged to a bounded number of points."""
    curves = Curves()
    for telemetry in events:
        event = telemetry.event
        if isinstance(event, TrainingStep):
            curves.training.append(telemetry.time_s, {"step": event.step, "loss": event.loss})
        elif isinstance(event, ValidationLoss):
            curves.validation.append(event)
    return curves


def loss_plot(curves: Curves) -> str | None:
    """Return training and validation loss with the constant prediction's, or None where nothing was trained."""
    training = curves.training.since(SeriesCursor()).columns
    if not training["step"]:
        return None
    figure, axes = _figure("training step", "loss: L1 amplitude + L1 phase")
    axes.plot(training["step"], training["loss"], color=TRAINING, lw=1.2, label="training")
    steps = [event.step for event in curves.validation]
    if steps:
        validation = [event.mean_over_seen for event in curves.validation]
        axes.plot(
            steps, validation, color=VALIDATION, lw=1.8, marker="o", ms=3, label="validation, perspectives so far"
        )
        constant = [event.constant for event in curves.validation]
        axes.plot(steps, constant, color=CONSTANT, ls="--", marker="_", label="constant prediction")
    axes.set_ylim(bottom=0)
    return _svg(figure, axes)


def quality_plot(perspectives: Rows, metric: str, label: str) -> str | None:
    """Return a phase figure (`psnr_db` or `ssim`) per perspective, or None where fewer than two were scored."""
    figure, axes = _figure("perspective", label)
    drawn = 0
    for name, title, colour, dash in (
        ("refreshed", "refreshed", REFRESHED, "-"),
        ("first_pass", "first pass", FIRST_PASS, "-"),
        ("constant", "constant prediction", CONSTANT, "--"),
    ):
        rows = [row for row in perspectives if row[name] and row[name][metric]["phase"] is not None]
        values = [row[name][metric]["phase"] for row in rows]
        axes.plot([row["index"] for row in rows], values, dash, color=colour, marker="o", ms=3, label=title)
        drawn = max(drawn, len(rows))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _svg(figure, axes) if drawn > 1 else None


def _figure(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.2, 3.0), layout="constrained")
        axes = figure.add_subplot()
        axes.set(xlabel=x_label, ylabel=y_label)
    return figure, axes


def _svg(figure: Figure, axes: Axes) -> str:
    file = io.StringIO()
    with mpl.rc_context(STYLE):
        axes.legend()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    return text[text.index("<svg") :]
