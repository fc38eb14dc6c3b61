"""Where the probe goes, perspective by perspective, and the newest frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ptychoflow.dashboard.arrays import are_indices, are_positions, is_image
from ptychoflow.streaming.events import FrameTaken, PerspectiveStarted, PositionsTaken

POSITIONS_KEPT = 20_000
"""Of a path that grows: a page draws no more."""


@dataclass(frozen=True)
class Path:
    """Where the probe goes in one perspective."""

    angle_deg: float
    indices: npt.NDArray[np.int64]
    """Of the frames, one for each position."""
    positions_px: npt.NDArray[np.float32]
    """(n, 2) as (y, x) in object pixels."""
    probe: npt.NDArray[np.complex64] | None
    """(mode, y, x)."""


@dataclass(frozen=True)
class NewestFrame:
    """A frame as it was taken, float32 (y, x), summed over squares of `info.binned_px` pixels."""

    info: FrameTaken
    diffraction: npt.NDArray[np.float32]
    revision: int


class ProbeStore:
    """Keeps the paths of the last few perspectives and the newest frame.

    Args:
        kept_perspectives: how many paths at most.
    """

    def __init__(self, *, kept_perspectives: int) -> None:
        self.newest: NewestFrame | None = None
        self._kept_perspectives = kept_perspectives
        self._paths: dict[int, Path] = {}
        self._frames = 0

    def start(self, event: PerspectiveStarted, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take in a path; an event read back from the run's folder has lost its arrays and changes nothing."""
        positions = arrays.get("positions_px")
        if not are_positions(positions):
            return
        probe = arrays.get("probe")
        if probe is not None and (probe.ndim != 3 or not probe.size or not np.iscomplexobj(probe)):
            probe = None
        indices = np.arange(len(positions), dtype=np.int64)
        self._paths[event.perspective] = Path(event.angle_deg, indices, positions.astype(np.float32), probe)
        while len(self._paths) > self._kept_perspectives:
            del self._paths[min(self._paths)]

    def extend(self, event: PositionsTaken, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take in more positions of a path; beyond `POSITIONS_KEPT` every other one of the path is left out.

        Positions that do not say which frames they are of change nothing.
        """
        path, positions = self._paths.get(event.perspective), arrays.get("positions_px")
        if path is None or not are_positions(positions):
            return
        new_indices = arrays.get("indices")
        if not are_indices(new_indices, frames=len(positions)):
            return
        indices = np.concatenate([path.indices, new_indices.astype(np.int64)])
        longer = np.concatenate([path.positions_px, positions.astype(np.float32)])
        while len(longer) > POSITIONS_KEPT:
            indices, longer = indices[::2], longer[::2]
        self._paths[event.perspective] = replace(path, indices=indices, positions_px=longer)

    def show(self, event: FrameTaken, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take in the newest frame."""
        diffraction = arrays.get("diffraction")
        if not is_image(diffraction):
            return
        self._frames += 1
        self.newest = NewestFrame(event, diffraction.astype(np.float32), self._frames)

    def path(self, perspective: int) -> Path | None:
        """Return the path of a perspective, or None where it is not known."""
        return self._paths.get(perspective)

    @property
    def lengths(self) -> dict[int, int]:
        """How many positions of each perspective are known."""
        return {perspective: len(path.positions_px) for perspective, path in sorted(self._paths.items())}
