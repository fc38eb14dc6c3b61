"""The figures of the experiment: validation loss over the perspectives seen, and the stitched held-out perspective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ptychoflow.inference_edge.stitching.figures import phase_scale
from ptychoflow.streaming.errors import writing
from ptychoflow.workflow.drawing import GREY, STYLE
from ptychoflow.workflow.experiments.colours import COLOURS
from ptychoflow.workflow.experiments.methods import Method
from ptychoflow.workflow.experiments.table import Run

FloatArray = npt.NDArray[np.float64]

CURVES, PANEL, MATRICES = "validation_loss.png", "held_out.png", "forgetting.png"
LABELS = "labels.png"
DPI = 160
MOST_COLUMNS = 6


def write_plots(
    results: dict[str, Any], images: Mapping[Method, Path], folder: Path, *, labelled: Mapping[int, str]
) -> list[Path]:
    """Write the pictures to the folder and return them; the panel needs a held-out perspective that could be stitched.

    Args:
        results: of the experiment.
        images: files of the first seed's held-out perspective by method, as far as they are there.
        folder: gets the pictures.
        labelled: the parts of the results by how few perspectives have ground truth; several give a picture of their
            own.

    Raises:
        UserError: a picture cannot be written.
    """
    with mpl.rc_context(STYLE):
        drawn = {folder / CURVES: _curves(results), folder / MATRICES: _matrices(results)}
        if len(labelled) > 1:
            drawn[folder / LABELS] = _labels(results, labelled)
        shown = {method: path for method, path in images.items() if path.exists()}
        if shown:
            drawn[folder / PANEL] = _panel(shown)
        for path, figure in drawn.items():
            with writing(path):
                figure.savefig(path, dpi=DPI)
    return list(drawn)


def _curves(results: dict[str, Any]) -> Figure:
    """As fig. 7.6 of the thesis: the loss over all perspectives so far, after each of them; bands are ± one spread."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel="perspectives learnt", ylabel="validation loss over the perspectives so far")
    constant = results["constant"]["validation_loss"]
    axes.axhline(constant, color=GREY, ls=":", lw=1.2, label="constant prediction")
    for name, found in results["strategies"].items():
        method = Method(name)
        if method is Method.FROM_SCRATCH:
            mean = np.mean([result["validation_loss"][-1] for result in found])
            axes.axhline(float(mean), color=COLOURS[method], ls="--", lw=1.4, label="from scratch, on everything")
            continue
        learnt, curves = _aligned(found)
        mean, spread = np.nanmean(curves, axis=0), np.nanstd(curves, axis=0)
        label = name.replace("_", " ")
        axes.plot(learnt, mean, color=COLOURS[method], lw=1.8, marker="o", ms=3, label=label)
        axes.fill_between(learnt, mean - spread, mean + spread, color=COLOURS[method], alpha=0.15, lw=0)
    axes.set_ylim(bottom=0)
    axes.legend(ncols=2)
    return figure


def _aligned(runs: Sequence[Run]) -> tuple[FloatArray, FloatArray]:
    """Return how many perspectives had come (n,), and each run's losses then (runs, n).

    Where nothing of a perspective was learnt, as all of it was void with that seed, a run has none: NaN. Results of
    before do not say which were; all were.
    """
    learnt = [run.get("learnt", range(len(run["validation_loss"]))) for run in runs]
    everywhere = sorted(set().union(*learnt))
    losses = np.full((len(runs), len(everywhere)), np.nan)
    for row, run, own in zip(losses, runs, learnt, strict=True):
        row[np.searchsorted(everywhere, own)] = run["validation_loss"]
    return np.array(everywhere) + 1.0, losses


def _labels(results: dict[str, Any], labelled: Mapping[int, str]) -> Figure:
    """The loss over all perspectives in the end, against how few of them had ground truth."""
    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel="one perspective in so many has ground truth", ylabel="validation loss over all perspectives")
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(labelled), [str(one_in) for one_in in labelled])
    axes.minorticks_off()
    axes.axhline(results["constant"]["validation_loss"], color=GREY, ls=":", lw=1.2, label="constant prediction")
    for name in dict.fromkeys(name for part in labelled.values() for name in results[part]):
        points = {
            one_in: np.array([run["validation_loss"][-1] for run in results[part][name]])
            for one_in, part in labelled.items()
            if name in results[part]
        }
        mean, spread = (np.array([getattr(losses, of)() for losses in points.values()]) for of in ("mean", "std"))
        axes.errorbar(
            list(points),
            mean,
            spread,
            color=COLOURS[Method(name)],
            lw=1.8,
            marker="o",
            ms=4,
            label=name.replace("_", " "),
        )
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


def _matrices(results: dict[str, Any]) -> Figure:
    """The loss on every perspective after every perspective, of the first seed."""
    streamed = {name: found[0] for name, found in results["strategies"].items() if name != Method.FROM_SCRATCH}
    rows, columns = _grid(len(streamed))
    figure = Figure(figsize=(2.4 * columns + 0.8, 2.6 * rows), layout="constrained")
    highest = max((np.max(result["validation_matrix"]) for result in streamed.values()), default=1.0)
    panels = _panels(figure, len(streamed))
    for axes, (name, result) in zip(panels, streamed.items(), strict=True):
        image = axes.imshow(
            np.array(result["validation_matrix"]).T, vmin=0, vmax=highest, cmap="viridis_r", origin="upper"
        )
        axes.set_title(name.replace("_", " "), fontsize=9)
        axes.set(xlabel="after perspective", ylabel="loss on perspective")
        axes.grid(visible=False)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True))
    if streamed:
        figure.colorbar(image, ax=list(panels), shrink=0.8, label="validation loss")
    return figure


def _panel(images: Mapping[Method, Path]) -> Figure:
    """As fig. 7.7 of the thesis: the phase of the held-out perspective, stitched from each method's patches."""
    pictures = [(method.value, np.load(path, allow_pickle=False)) for method, path in images.items()]
    reference = pictures[0][1]["reference_phase"]
    scale = phase_scale(reference[np.isfinite(reference)])
    rows, columns = _grid(len(pictures) + 1)
    height, width = reference.shape
    figure = Figure(figsize=(2.0 * columns + 0.8, (2.0 * height / width + 0.4) * rows), layout="constrained")
    panels = _panels(figure, len(pictures) + 1)
    shown = [("reference", reference), *((name, arrays["phase"]) for name, arrays in pictures)]
    for axes, (name, phase) in zip(panels, shown, strict=True):
        image = _image(axes, name.replace("_", " "), phase, scale)
    figure.colorbar(image, ax=list(panels), shrink=0.85, label="phase, rad")
    return figure


def _grid(panels: int) -> tuple[int, int]:
    """Return rows and columns for so many panels; rows are as long as each other, as far as that goes."""
    rows = max(1, -(-panels // MOST_COLUMNS))
    return rows, max(1, -(-panels // rows))


def _panels(figure: Figure, count: int) -> list[Axes]:
    """Return so many axes, row by row; what is left of the last row stays empty."""
    rows, columns = _grid(count)
    axes: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in axes[count:]:
        unused.remove()
    return axes[:count]


def _image(axes: Axes, title: str, phase: Any, scale: Any) -> Any:
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()
    return axes.imshow(phase, cmap=scale.colour_map, vmin=scale.lower, vmax=scale.upper)
