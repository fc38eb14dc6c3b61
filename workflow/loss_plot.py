"""The figure of a run's losses over the training step."""

from __future__ import annotations

from ptychoflow.streaming.state.run import RunState
from ptychoflow.workflow.drawing import GREEN, GREY, VIOLET, as_svg, new_figure

TRAINING, VALIDATION, CONSTANT = VIOLET, GREEN, GREY


def loss_plot(state: RunState, *, of_images: bool = False) -> str | None:
    """Return training and validation loss with the constant prediction's, or None where nothing was trained."""
    training, validation = state.series["training"].columns(), state.series["validation"].columns()
    if not training["step"]:
        return None
    loss, baseline = ("cross-entropy", "guessing") if of_images else ("L1 amplitude + L1 phase", "constant prediction")
    figure, axes = new_figure("training step", f"loss: {loss}")
    axes.plot(training["step"], training["loss"], color=TRAINING, lw=1.2, label="training")
    steps = validation["step"]
    if steps:
        seen = "validation, tasks so far" if of_images else "validation, perspectives so far"
        axes.plot(steps, validation["mean_over_seen"], color=VALIDATION, lw=1.8, marker="o", ms=3, label=seen)
        axes.plot(steps, validation["constant"], color=CONSTANT, ls="--", marker="_", label=baseline)
    axes.set_ylim(bottom=0)
    return as_svg(figure, axes)
