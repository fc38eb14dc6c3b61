"""Plots in the manner of the thesis's figures 5.1, 5.2, 5.4 and 5.5."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ptychoflow.streaming.errors import writing
from ptychoflow.workflow.drawing import BLUE, GREEN, GREY, ORANGE, RED, STYLE
from ptychoflow.workflow.experiments.case import STRATEGIES
from ptychoflow.workflow.experiments.classification.case import BUFFER_SHARE, RANKS
from ptychoflow.workflow.experiments.colours import COLOURS
from ptychoflow.workflow.experiments.methods import Method

Content = dict[str, Any]
Runs = list[dict[str, Any]]

STACKS = {
    (-1, "foreground"): {"load": GREY, "train": BLUE, "buffer_wait": RED},
    (1, "background"): {"populate": GREEN, "augment": ORANGE},
}
"""Side by side: the times that make up a step, and those hidden behind it."""


def write_plots(content: Content, folder: Path, *, stem: str) -> list[Path]:
    """Draw what the results allow as PNG; return the files.

    Raises:
        UserError: a file cannot be written.
    """
    drawings: dict[str, tuple[bool, Callable[[Content, Figure], None]]] = {
        "epochs": (bool(content[STRATEGIES]), _draw_epochs),
        "breakdown": (bool(content[STRATEGIES]), _draw_breakdown),
        "buffer": (BUFFER_SHARE in content["sweeps"], _draw_buffer),
        "ranks": (RANKS in content["sweeps"], _draw_ranks),
    }
    written = []
    for name, (possible, draw) in drawings.items():
        if possible:
            path = folder / f"{stem}-{name}.png"
            _write(content, path, draw)
            written.append(path)
    return written


def _write(content: Content, path: Path, draw: Callable[[Content, Figure], None]) -> None:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.0, 3.2), layout="constrained")
        draw(content, figure)
        with writing(path):
            figure.savefig(path, dpi=110)


def _draw_epochs(content: Content, figure: Figure) -> None:
    """Accuracy and time over epochs (fig. 5.2)."""
    panels = dict(zip(("average_top1", "seconds"), figure.subplots(1, 2), strict=True))
    for method, runs in content[STRATEGIES].items():
        for name, axes in panels.items():
            histories = [[epoch[name] for epoch in run["epochs"]] for run in runs]
            _draw_band(axes, histories, label=method, colour=COLOURS[Method(method)])
    _label(panels["average_top1"], "epoch, task after task", "average top-1 over the tasks seen")
    _label(panels["seconds"], "epoch, task after task", "training time (s)")
    panels["average_top1"].set_ylim(0, 1)
    panels["seconds"].set_ylim(bottom=0)
    per_task = len(next(iter(content[STRATEGIES].values()))[0]["epochs"]) // content["tasks"]
    for axes in panels.values():
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        for task in range(1, content["tasks"] if per_task > 1 else 1):
            axes.axvline(task * per_task + 0.5, color=GREY, linewidth=0.8, linestyle=":")
    handles, labels = panels["seconds"].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))


def _draw_band(axes: Axes, histories: list[list[float]], *, label: str, colour: str) -> None:
    """Draw the mean over the seeds as a line, and from the least to the most as a band."""
    at_epoch = list(zip(*histories, strict=True))
    epochs = range(1, len(at_epoch) + 1)
    axes.plot(epochs, [fmean(values) for values in at_epoch], marker=".", label=label, color=colour)
    if len(histories) > 1:
        lows, highs = [min(values) for values in at_epoch], [max(values) for values in at_epoch]
        axes.fill_between(epochs, lows, highs, color=colour, alpha=0.15, linewidth=0)


def _draw_breakdown(content: Content, figure: Figure) -> None:
    """Time of a step in the foreground, beside it the buffer's in the background (fig. 5.4)."""
    axes = figure.subplots()
    methods = list(content[STRATEGIES])
    highest = 0.0
    for (side, where), times in STACKS.items():
        base = [0.0] * len(methods)
        for name, colour in times.items():
            heights = [_mean_of(content[STRATEGIES][method], name) for method in methods]
            positions = [index + 0.2 * side for index in range(len(methods))]
            label = f"{name.replace('_', ' ')} ({where})"
            axes.bar(positions, heights, width=0.36, bottom=base, label=label, color=colour)
            base = [low + height for low, height in zip(base, heights, strict=True)]
        highest = max(highest, *base)
    axes.set_ylim(0, 1.05 * highest)
    axes.set_xticks(range(len(methods)), methods)
    axes.grid(visible=False, axis="x")
    _label(axes, "", "ms per step")
    figure.legend(loc="outside right center", reverse=True)


def _mean_of(runs: Runs, name: str) -> float:
    return fmean(run["breakdown_ms"].get(name, 0.0) for run in runs)


def _draw_buffer(content: Content, figure: Figure) -> None:
    """Accuracy over the size of the buffer (fig. 5.1), between training without one and training on everything."""
    axes = figure.subplots()
    runs = _with_base(content, BUFFER_SHARE)
    _plot_sweep(axes, [run | {BUFFER_SHARE: 100.0 * run[BUFFER_SHARE]} for run in runs], BUFFER_SHARE, "average_top1")
    for method in (Method.FROM_SCRATCH, Method.INCREMENTAL):
        if method in content[STRATEGIES]:
            level = fmean(run["average_top1"] for run in content[STRATEGIES][method])
            axes.axhline(level, color=COLOURS[method], linestyle="--", label=method.value)
    axes.set(xlim=(0, None), ylim=(0, 1))
    _label(axes, "buffer, share of the training set (%)", "average top-1")
    figure.legend(loc="outside right center")


def _draw_ranks(content: Content, figure: Figure) -> None:
    """Accuracy and time over the number of ranks (fig. 5.5)."""
    accuracy, time = figure.subplots(1, 2)
    runs = _with_base(content, RANKS)
    _plot_sweep(accuracy, runs, RANKS, "average_top1")
    _plot_sweep(time, runs, RANKS, "seconds")
    _label(accuracy, "ranks", "average top-1")
    _label(time, "ranks", "training time (s)")
    accuracy.set_ylim(0, 1)
    time.set_ylim(bottom=0)
    for axes in (accuracy, time):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    accuracy.legend()


def _with_base(content: Content, sweep: str) -> Runs:
    """Return a sweep's runs with those of `er` as it was compared with other methods, which are one of its points."""
    runs: Runs = content["sweeps"][sweep]
    swept = {run[sweep] for run in runs}
    return [*runs, *(run for run in content[STRATEGIES].get(Method.ER, []) if run[sweep] not in swept)]


def _plot_sweep(axes: Axes, runs: Runs, over: str, name: str) -> None:
    values = sorted({run[over] for run in runs})
    means = [fmean(run[name] for run in runs if run[over] == value) for value in values]
    colour = COLOURS[Method.ER]
    axes.plot(values, means, color=colour, label="er, mean")
    axes.plot(
        [run[over] for run in runs], [run[name] for run in runs], ".", color=colour, alpha=0.5, label="er, a seed"
    )


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
