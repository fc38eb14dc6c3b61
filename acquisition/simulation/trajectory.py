"""Scan positions in acquisition order."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.source_settings import SimulationSettings, Trajectory

JITTER_LIMIT = 3.0
"""Jitter is cut off at this many standard deviations, so that the scanned area is known beforehand."""


def step_px(settings: SimulationSettings) -> tuple[float, float]:
    """Return the distance (y, x) between neighbouring positions that leaves the overlap asked for."""
    height, width = settings.frame_shape_px
    step = settings.probe.diameter_fraction * (1 - settings.overlap)
    return step * height, step * width


def scan_positions(settings: SimulationSettings, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return (frames, 2) positions (y, x) about the origin, line by line along x, lines from low to high y."""
    frames = settings.frames_per_perspective
    columns = math.ceil(math.sqrt(frames))
    line, place = np.divmod(np.arange(frames), columns)
    if settings.trajectory is Trajectory.SNAKE:
        place = np.where(line % 2 == 0, place, columns - 1 - place)
    grid = np.stack([line - line[-1] / 2, place - (columns - 1) / 2], axis=1)
    jitter = np.clip(rng.standard_normal(grid.shape), -JITTER_LIMIT, JITTER_LIMIT)
    return grid * step_px(settings) + jitter * settings.position_jitter_px


def field_shape_px(settings: SimulationSettings) -> tuple[int, int]:
    """Return the shape of an object, centred on the origin, that every patch of the scan fits into."""
    columns = math.ceil(math.sqrt(settings.frames_per_perspective))
    lines = math.ceil(settings.frames_per_perspective / columns)
    margin = 2 * JITTER_LIMIT * settings.position_jitter_px + 4
    step_y, step_x = step_px(settings)
    height, width = settings.frame_shape_px
    return math.ceil((lines - 1) * step_y + height + margin), math.ceil((columns - 1) * step_x + width + margin)
