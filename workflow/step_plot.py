"""The figure of where a training step's time goes, with the buffer's work beside the visible step.

Laid out as fig. 5.4 of T. Bouvier, Distributed Rehearsal Buffers for Continual Learning at Scale (INSA Rennes, 2024).
"""

from __future__ import annotations

import math

import numpy as np

from ptychoflow.streaming.state.run import RunState
from ptychoflow.workflow.drawing import BLUE, GREEN, ORANGE, RED, VIOLET, as_svg, new_figure

GROUPS_MOST = 8
BAR_WIDTH = 0.38
VISIBLE = (("load_ms", "load", ORANGE), ("train_ms", "train", BLUE), ("buffer_wait_ms", "wait for the buffer", RED))
BESIDE = (("populate_ms", "insert (beside)", GREEN), ("augment_ms", "draw (beside)", VIOLET))


def step_plot(state: RunState) -> str | None:
    """Return stacked bars of mean milliseconds per step over the run, or None where nothing was trained."""
    columns = state.series["steps"].columns()
    reports = len(columns["step"])
    if not reports:
        return None
    figure, axes = new_figure("training step", "ms per step")
    groups = np.array_split(np.arange(reports), min(reports, GROUPS_MOST))
    places = np.arange(len(groups), dtype=float)
    for parts, offset, hatch in ((VISIBLE, -BAR_WIDTH / 2, None), (BESIDE, BAR_WIDTH / 2, "////")):
        top = np.zeros(len(groups))
        for name, title, colour in parts:
            heights = np.array([np.mean(np.array(columns[name])[group]) for group in groups])
            axes.bar(
                places + offset, heights, BAR_WIDTH * 0.94, bottom=top, color=colour, label=title,
                hatch=hatch, edgecolor="white", linewidth=0,
            )  # fmt: skip
            top += heights
    axes.set_xticks(places, [f"to {_short(columns['step'][group[-1]])}" for group in groups])
    axes.tick_params(axis="x", labelsize=7)
    axes.grid(visible=False, axis="x")
    return as_svg(figure, axes, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _short(step: float) -> str:
    """Return the number of a step in so few letters that eight of them have room beside each other."""
    for least, size, letter in ((1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if step >= least:
            return f"{step / size:.{max(0, 2 - int(math.log10(step / size)))}f}{letter}"
    return f"{step:.0f}"
