"""What a reader finds for one perspective: what the file says, before anything that the user has set."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.readers.frame_stack import FrameStack
from ptychoflow.acquisition.readers.geometry import FoundGeometry
from ptychoflow.acquisition.scan import ObjectImage
from ptychoflow.acquisition.source_settings import FrameAxes


@dataclass(frozen=True)
class Positions:
    """Positions, one row each."""

    values: npt.NDArray[np.float64]
    """(rows, 2) as (y, x): metres or object pixels."""
    in_pixels: bool = False
    """Whether `values` counts object pixels."""
    frames: npt.NDArray[np.int64] | None = None
    """The number of each row's frame, from 0; None if row k belongs to frame k."""


@dataclass(frozen=True)
class FileContents:
    """One perspective as the file has it; what the file does not hold is None."""

    where: str
    """File and group, for error messages."""
    frames: FrameStack
    frame_axes: FrameAxes | None = FrameAxes.YX
    """Order of the stored frames' axes; None where the file leaves it open."""
    geometry: FoundGeometry = field(default_factory=FoundGeometry)
    positions: Positions | None = None
    angle_deg: float | None = None
    probe: npt.NDArray[np.complex64] | None = None
    """(mode, y, x)."""
    mask: npt.NDArray[np.bool_] | None = None
    """(y, x), True for pixels to ignore."""
    ground_truth: ObjectImage | None = None
    notes: list[str] = field(default_factory=list)
