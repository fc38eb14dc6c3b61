"""Draw what is in a scan, without processing it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ptychoflow.acquisition.frame_check import readable_frames, usable
from ptychoflow.acquisition.scan import Perspective, Scan
from ptychoflow.streaming.durable_file import durable_file
from ptychoflow.streaming.errors import writing

MEAN_FRAMES = 64
SAMPLE_FRAMES = 4


def plot_scan(scan: Scan, png_path: Path) -> None:
    """Write a PNG of the first perspective: mean frame, positions, probe, object if known, and some frames.

    Raises `UserError` when the file cannot be written.
    """
    perspective = scan.perspective(0)
    figure = Figure(figsize=(14, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    several = f"{len(scan)} perspective{'s' * (len(scan) > 1)}"
    figure.suptitle(f"{scan.name}: {several}, {len(perspective)} frames in the first")
    upper, lower = figure.subplots(2, 4)
    _draw_mean(upper[0], perspective)
    _draw_positions(upper[1], perspective)
    _draw_probe(upper[2], perspective)
    _draw_object(upper[3], perspective)
    shown = _spread(len(perspective), SAMPLE_FRAMES)
    frames = dict(readable_frames(perspective, shown))
    for axes, index in zip(lower, shown, strict=False):
        if index in frames:
            _draw_image(axes, _log_counts(frames[index][0]), f"frame {index}, log(1 + counts)")
        else:
            axes.set_axis_off()
            axes.set_title(f"frame {index} cannot be read")
    with writing(png_path), durable_file(png_path) as unfinished:
        figure.savefig(unfinished, dpi=100, format="png")


def _spread(frames: int, count: int) -> list[int]:
    count = min(frames, count)
    return [number * frames // count for number in range(count)]


def _log_counts(frame: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.log1p(frame.astype(np.float64))


def _draw_image(axes: Axes, image: npt.NDArray[Any], title: str, **style: Any) -> None:
    axes.imshow(image, **style)
    axes.set_title(title)
    axes.set_xlabel("x (px)")
    axes.set_ylabel("y (px)")


def _draw_mean(axes: Axes, perspective: Perspective) -> None:
    total, seen = np.zeros(perspective.geometry.frame_shape_px), 0
    for _, frame in readable_frames(perspective, _spread(len(perspective), MEAN_FRAMES)):
        if usable(frame)[0]:
            total += frame[0]
            seen += 1
    image = _log_counts(total / max(seen, 1))
    if perspective.mask is not None:
        image[perspective.mask] = np.nan
    _draw_image(axes, image, f"mean of {seen} frames, log(1 + counts)")


def _draw_positions(axes: Axes, perspective: Perspective) -> None:
    y, x = perspective.positions_px.T
    axes.plot(x, y, color="0.8", linewidth=0.5)
    axes.scatter(x, y, c=np.arange(len(x)), s=4)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.set_title("positions, dark to light in order")
    axes.set_xlabel("x (object px)")
    axes.set_ylabel("y (object px)")


def _draw_probe(axes: Axes, perspective: Perspective) -> None:
    if perspective.probe is None:
        axes.set_axis_off()
        return
    _draw_image(axes, np.sqrt(np.sum(np.abs(perspective.probe) ** 2, axis=0)), "probe amplitude")


def _draw_object(axes: Axes, perspective: Perspective) -> None:
    if perspective.ground_truth is None:
        axes.set_axis_off()
        axes.set_title("no recorded ground truth")
        return
    origin_y, origin_x = perspective.ground_truth.origin_px
    height, width = perspective.ground_truth.values.shape
    extent = (origin_x - 0.5, origin_x + width - 0.5, origin_y + height - 0.5, origin_y - 0.5)
    _draw_image(axes, np.angle(perspective.ground_truth.values), "ground truth, phase", cmap="gray", extent=extent)
