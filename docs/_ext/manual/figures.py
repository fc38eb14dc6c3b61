"""Figures: SVG files drawn by hand, and diagrams that are computed while the manual is built.

They are put into the page itself, so that lines and letters take the colour of the page's text, by day and by night.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure

from ptychoflow.acquisition.retrieval.gauge import find_gauge
from ptychoflow.acquisition.simulation.scan import SimulatedScan
from ptychoflow.acquisition.source_settings import SimulationSettings
from ptychoflow.buffer import Field, RehearsalBuffer, Schema

DRAWN = Path(__file__).parents[2] / "figures"
BLUE, ORANGE, GREEN = "#3b8fc4", "#d9822b", "#4a9e5c"
STREAM, CAPACITY, OFFERED_AT_ONCE = 8000, 1000, 50


def figure(name: str) -> str:
    """Return the figure `name` as Markdown: `figures/<name>.svg`, or what a function of this module computes."""
    file = DRAWN / f"{name}.svg"
    svg = file.read_text(encoding="utf-8") if file.is_file() else _computed(COMPUTED[name])
    return f'```{{raw}} html\n<div class="drawing">{svg}</div>\n```'


def _computed(draw: Callable[[], Figure]) -> str:
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "manual", "font.size": 10, "axes.spines.top": False,
                         "axes.spines.right": False}):  # fmt: skip
        drawn = draw()
        text = io.StringIO()
        drawn.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace("#000000", "currentColor")
    # as wide as the column
    return re.sub(r'<svg ([^>]*?)width="[^"]*" height="[^"]*"', r"<svg \1", re.sub(r"\n\s*\n", "\n", svg), count=1)


def survival() -> Figure:
    """Which items of a stream are still stored at its end, by the policy: counted on the buffer itself."""
    drawing = Figure(figsize=(6.4, 3.0), layout="constrained")
    axes = drawing.subplots()
    bins = np.linspace(0, STREAM, 17)
    for policy, colour in (("random", BLUE), ("reservoir", GREEN), ("fifo", ORANGE)):
        share = np.histogram(_stored(policy), bins)[0] / (STREAM / (len(bins) - 1))
        axes.stairs(100 * share, bins, label=policy, color=colour, linewidth=1.8)
    axes.set(xlabel="item of the stream, oldest first", ylabel="still stored (%)", xlim=(0, STREAM), ylim=(0, 105))
    axes.legend(frameon=False, loc="upper left")
    return drawing


def _stored(policy: str) -> np.ndarray:
    with RehearsalBuffer(
        Schema(number=Field((), "int64")), capacity=CAPACITY, representatives=CAPACITY, candidates=OFFERED_AT_ONCE,
        policy=policy, transport="local",
    ) as buffer:  # fmt: skip
        for numbers in torch.arange(STREAM).split(OFFERED_AT_ONCE):
            buffer.update({"number": numbers})
        return buffer.take()["number"].numpy().copy()


def requests() -> Figure:
    """What a draw asks of other ranks, by their number."""
    ranks = np.arange(1, 1025)
    drawing = Figure(figsize=(6.4, 2.8), layout="constrained")
    axes = drawing.subplots()
    for wanted, colour in ((8, GREEN), (24, BLUE), (56, ORANGE)):
        mean = (ranks - 1) * (1 - (1 - 1 / ranks) ** wanted)
        axes.plot(ranks, mean, color=colour, label=f"r = {wanted}")
    axes.set(xscale="log", xlabel="ranks", ylabel="requests a step, mean", xlim=(1, 1024), ylim=(0, None))
    axes.set_xticks([1, 4, 16, 64, 256, 1024], ["1", "4", "16", "64", "256", "1024"])
    axes.minorticks_off()
    axes.legend(frameon=False, loc="upper left")
    return drawing


def gauge() -> Figure:
    """A simulated object as phase retrieval might return it, and in the gauge."""
    settings = SimulationSettings(perspectives=1, frames_per_perspective=150, angle_range_deg=(0.0, 0.0))
    truth = SimulatedScan(settings).perspective(0).ground_truth.values
    y, x = np.mgrid[: truth.shape[0], : truth.shape[1]]
    returned = truth * 1.7 * np.exp(1j * (0.045 * y - 0.03 * x + 1.0))
    found = find_gauge(returned, np.ones(truth.shape, bool))
    drawing = Figure(figsize=(6.4, 2.9), layout="constrained")
    left, right = drawing.subplots(1, 2)
    for axes, values, title in ((left, returned, "as returned"), (right, found.apply(returned), "in the gauge")):
        shown = axes.imshow(np.angle(values), cmap="twilight", vmin=-np.pi, vmax=np.pi, interpolation="nearest")
        axes.set_title(title, fontsize=10)
        axes.set_axis_off()
    bar = drawing.colorbar(shown, ax=[left, right], ticks=[-np.pi, 0, np.pi])
    bar.ax.set_yticklabels(["−π", "0", "π"])
    bar.set_label("phase (rad)")
    return drawing


COMPUTED: Mapping[str, Callable[[], Figure]] = {"survival": survival, "requests": requests, "gauge": gauge}
"""Drawn from the code itself while the manual is built."""
