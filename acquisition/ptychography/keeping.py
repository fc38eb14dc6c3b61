"""Keeps the frames of perspectives on disk for who hands whole scans over to other programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ptychoflow.acquisition.ptychography.acquired import AcquiredPerspective
from ptychoflow.streaming.kept_perspective import About, keep_perspective


class Keeper:
    """Gives the file of a perspective's frames a second name, under which it stays when the first one goes.

    Args:
        folder: where perspectives are kept.
        warn: told of each one that is not handed over, and why.
    """

    def __init__(self, folder: Path, *, warn: Callable[[str], None]) -> None:
        self._folder, self._warn = folder, warn

    def keep(self, acquired: AcquiredPerspective) -> None:
        """Keep a perspective; does not copy its frames."""
        perspective, geometry = acquired.perspective, acquired.perspective.geometry
        stored = acquired.frames
        height, width = geometry.frame_shape_px
        about = About(
            perspective=perspective.index,
            angle_deg=float(perspective.angle_deg),
            energy_eV=float(geometry.energy_eV),
            detector_distance_m=float(geometry.detector_distance_m),
            detector_pixel_size_m=geometry.detector_pixel_size_m,
            object_pixel_size_m=geometry.object_pixel_size_m,
            stored_shape=(len(stored.mapped), height, width),
            stored_dtype=stored.mapped.dtype.str,
        )
        arrays: dict[str, npt.NDArray[Any] | None] = {
            "indices": acquired.indices,
            "positions_px": acquired.positions_px,
            "places": stored.places,
            "probe": perspective.probe,
            "mask": perspective.mask,
        }
        try:
            lost = keep_perspective(self._folder, about, stored.path, arrays)
        except OSError as error:
            self._warn(f"perspective {perspective.index} is not handed over: {error}")
            return
        for index in lost:
            self._warn(f"perspective {index} is not handed over: too many others wait for it")
