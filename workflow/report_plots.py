"""What of a run's telemetry a report draws, and the figure of its losses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ptychoflow.dashboard.series import Series, SeriesCursor
from ptychoflow.streaming.events import StepBreakdown, Telemetry, TrainingStep, ValidationLoss
from ptychoflow.workflow.drawing import GREEN, GREY, VIOLET, as_svg, new_figure

CURVE_POINTS = 600
TRAINING, VALIDATION, CONSTANT = VIOLET, GREEN, GREY


@dataclass
class Curves:
    """What of the telemetry is drawn over the training step: losses, and where the time went."""

    training: Series = field(default_factory=lambda: Series(["step", "loss"], capacity=CURVE_POINTS))
    validation: list[ValidationLoss] = field(default_factory=list)
    breakdowns: list[StepBreakdown] = field(default_factory=list)


def collect_curves(events: Iterable[Telemetry]) -> Curves:
    """Reduce the telemetry of a run to its curves; training losses are averaged to a bounded number of points."""
    curves = Curves()
    for telemetry in events:
        event = telemetry.event
        if isinstance(event, TrainingStep):
            curves.training.append(telemetry.time_s, {"step": event.step, "loss": event.loss})
        elif isinstance(event, ValidationLoss):
            curves.validation.append(event)
        elif isinstance(event, StepBreakdown):
            curves.breakdowns.append(event)
    return curves


def loss_plot(curves: Curves, *, of_images: bool = False) -> str | None:
    """Return training and validation loss with the constant prediction's, or None where nothing was trained."""
    training = curves.training.since(SeriesCursor()).columns
    if not training["step"]:
        return None
    loss, baseline = ("cross-entropy", "guessing") if of_images else ("L1 amplitude + L1 phase", "constant prediction")
    figure, axes = new_figure("training step", f"loss: {loss}")
    axes.plot(training["step"], training["loss"], color=TRAINING, lw=1.2, label="training")
    steps = [event.step for event in curves.validation]
    if steps:
        validation = [event.mean_over_seen for event in curves.validation]
        axes.plot(
            steps, validation, color=VALIDATION, lw=1.8, marker="o", ms=3, label="validation, perspectives so far"
        )
        constant = [event.constant for event in curves.validation]
        axes.plot(steps, constant, color=CONSTANT, ls="--", marker="_", label=baseline)
    axes.set_ylim(bottom=0)
    return as_svg(figure, axes)
