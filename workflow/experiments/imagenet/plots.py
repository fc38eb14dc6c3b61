"""Plots in the manner of the thesis's figures 5.1, 5.2, 5.4 and 5.5."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from streaming.errors import UserError
from workflow.drawing import STYLE
from workflow.experiments.imagenet.cases import BUFFER_SHARE, RANKS, STRATEGIES

Content = dict[str, Any]
Runs = list[dict[str, Any]]


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
        try:
            figure.savefig(path, dpi=110)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from error


def _draw_epochs(content: Content, figure: Figure) -> None:
    """Accuracy and time over epochs (fig. 5.2)."""
    accuracy, time = figure.subplots(1, 2)
    for method, runs in content[STRATEGIES].items():
        histories = [run["epochs"] for run in runs]
        epochs = range(1, len(histories[0]) + 1)
        accuracy.plot(epochs, _over_seeds(histories, "average_top1"), marker=".", label=method)
        time.plot(epochs, _over_seeds(histories, "seconds"), marker=".", label=method)
    _label(accuracy, "epoch", "average top-1 of tasks seen")
    _label(time, "epoch", "training time (s)")
    accuracy.set_ylim(0, 1)
    accuracy.legend()


def _over_seeds(histories: list[Runs], name: str) -> list[float]:
    return [fmean(epoch[name] for epoch in epochs) for epochs in zip(*histories, strict=True)]


def _draw_breakdown(content: Content, figure: Figure) -> None:
    """Time of a step in the foreground, beside it the buffer's in the background (fig. 5.4)."""
    axes = figure.subplots()
    methods = list(content[STRATEGIES])
    stacks = [("load", "train", "buffer_wait"), ("populate", "augment")]
    for side, names in enumerate(stacks):
        base = [0.0] * len(methods)
        for name in names:
            heights = [_mean_of(content[STRATEGIES][method], name) for method in methods]
            positions = [index + 0.4 * side - 0.2 for index in range(len(methods))]
            axes.bar(positions, heights, width=0.36, bottom=base, label=name.replace("_", " "))
            base = [low + height for low, height in zip(base, heights, strict=True)]
    axes.set_xticks(range(len(methods)), methods)
    _label(axes, "", "ms per step")
    axes.legend()


def _mean_of(runs: Runs, name: str) -> float:
    return fmean(run["breakdown_ms"].get(name, 0.0) for run in runs)


def _draw_buffer(content: Content, figure: Figure) -> None:
    """Accuracy over the size of the buffer (fig. 5.1)."""
    axes = figure.subplots()
    _plot_sweep(axes, content["sweeps"][BUFFER_SHARE], BUFFER_SHARE, "average_top1")
    _label(axes, "buffer, share of the training set", "average top-1")


def _draw_ranks(content: Content, figure: Figure) -> None:
    """Accuracy and time over the number of ranks (fig. 5.5)."""
    accuracy, time = figure.subplots(1, 2)
    runs = content["sweeps"][RANKS]
    _plot_sweep(accuracy, runs, RANKS, "average_top1")
    _plot_sweep(time, runs, RANKS, "seconds")
    _label(accuracy, "ranks", "average top-1")
    _label(time, "ranks", "training time (s)")


def _plot_sweep(axes: Axes, runs: Runs, over: str, name: str) -> None:
    values = sorted({run[over] for run in runs})
    means = [fmean(run[name] for run in runs if run[over] == value) for value in values]
    axes.plot(values, means, color="C0")
    axes.plot([run[over] for run in runs], [run[name] for run in runs], ".", color="C0", alpha=0.5)
    axes.set_ylim(bottom=0)


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
