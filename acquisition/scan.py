"""The data model of a scan: perspectives of frames with positions, and the far-field geometry.

Conventions used everywhere in the project:

- Frames have axes (frame, y, x); zero frequency is at pixel (y // 2, x // 2).
- The exit wave of the frame at `position_px` p is `probe * object patch`, and the frame is
  `|fftshift(fft2(ifftshift(exit wave), norm="ortho"))|²`.
- Positions are (y, x) in object pixels. Pixel (N // 2, N // 2) of a patch of N × N pixels lies at the position,
  so the central M × M of it starts at pixel N // 2 - M // 2.
- An object image carries the position of its pixel (0, 0) as `origin_px`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PLANCK_J_S = 6.62607015e-34
SPEED_OF_LIGHT_M_S = 299792458.0
ELEMENTARY_CHARGE_C = 1.602176634e-19


@dataclass(frozen=True)
class Geometry:
    """Far-field geometry. Pairs are (y, x)."""

    energy_eV: float
    detector_distance_m: float
    detector_pixel_size_m: tuple[float, float]
    frame_shape_px: tuple[int, int]

    @property
    def wavelength_m(self) -> float:
        """Photon wavelength, h·c/E."""
        return PLANCK_J_S * SPEED_OF_LIGHT_M_S / (self.energy_eV * ELEMENTARY_CHARGE_C)

    @property
    def object_pixel_size_m(self) -> tuple[float, float]:
        """λ·z/(N·Δdet) along y and x."""
        height, width = self.frame_shape_px
        reach = self.wavelength_m * self.detector_distance_m
        return reach / (height * self.detector_pixel_size_m[0]), reach / (width * self.detector_pixel_size_m[1])


@dataclass(frozen=True)
class ObjectImage:
    """A complex transmission function on the object grid.

    `values` complex64 (y, x); pixel (i, j) shows the object at position `origin_px + (i, j)`.
    """

    values: npt.NDArray[np.complex64]
    origin_px: tuple[float, float]


class Perspective(ABC):
    """One ordered run of frames; one rotation angle or one file. Frames may be larger than memory."""

    index: int
    angle_deg: float
    geometry: Geometry
    positions_px: npt.NDArray[np.float64]
    """(frames, 2) as (y, x)."""
    probe: npt.NDArray[np.complex64] | None
    """Starting probe (mode, y, x), or None where the file has none."""
    mask: npt.NDArray[np.bool_] | None
    """(y, x), True for pixels that must be ignored."""
    ground_truth: ObjectImage | None
    """Recorded or simulated object, as it is in the source, not yet brought to the common gauge."""
    notes: Sequence[str] = ()
    """What was estimated, assumed or set aside, in words for a person."""

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.positions_px)

    @abstractmethod
    def read(self, start: int, stop: int) -> npt.NDArray[np.generic]:
        """Return frames start to stop, (stop - start, y, x), in the source's dtype. Reads from disk; may block."""


class Scan(ABC):
    """A sequence of perspectives."""

    name: str

    @property
    @abstractmethod
    def notes(self) -> list[str]:
        """What was estimated, assumed or set aside, in words for a person: of the perspectives looked at so far."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of perspectives."""

    @property
    @abstractmethod
    def frames(self) -> int:
        """Frames of all perspectives together."""

    @abstractmethod
    def perspective(self, index: int) -> Perspective:
        """Return perspective `index`, from 0."""

    def __iter__(self) -> Iterator[Perspective]:
        """Iterate over perspectives in acquisition order."""
        return (self.perspective(index) for index in range(len(self)))

    def close(self) -> None:
        """Release files; the default holds none."""
