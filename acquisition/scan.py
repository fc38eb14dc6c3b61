"""The data model of a scan: perspectives of frames with positions, and the far-field geometry.

A scan may be open-ended: while a detector sends it, nobody knows how many frames and perspectives will come. What is
streamed is such an `OpenEndedScan`; a `Scan`, of a file or a simulation, is one whose end is known.

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
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from ptychoflow.streaming.errors import UserError

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


class Ending(StrEnum):
    """Why nothing more comes of a perspective."""

    COMPLETE = "complete"
    """The source said that it is done."""
    ABORTED = "aborted"
    """The source said that it was broken off."""
    NEXT_SERIES = "next_series"
    """Another series began, and nothing more came of this one."""
    STALLED = "stalled"
    """Nothing came for longer than `idle_s`."""


@dataclass(frozen=True)
class FrameBatch:
    """Frames that belong together with their positions; one row each."""

    indices: npt.NDArray[np.int32]
    """(n,), of the frames in their perspective; they grow from batch to batch unless frames come out of order."""
    positions_px: npt.NDArray[np.float64]
    """(n, 2) as (y, x)."""
    frames: npt.NDArray[np.generic]
    """(n, y, x), in the source's dtype."""
    notes: tuple[str, ...] = ()
    """What went wrong with some of them, in words for a person."""
    acquired_at_s: float | None = None
    """`time.time()` when the last one arrived; None for one that was recorded or simulated."""

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.indices)


class OpenEndedPerspective(ABC):
    """A run of frames of which nobody need know how long it is; one rotation angle, one series of a detector."""

    index: int
    angle_deg: float
    geometry: Geometry
    probe: npt.NDArray[np.complex64] | None
    """Starting probe (mode, y, x), or None where the source has none."""
    mask: npt.NDArray[np.bool_] | None
    """(y, x), True for pixels that must be ignored."""
    ground_truth: ObjectImage | None
    """Recorded or simulated object, as it is in the source, not yet brought to the common gauge."""
    notes: Sequence[str] = ()
    """What was estimated, assumed or set aside, in words for a person."""
    ending: Ending
    """Why nothing more came; known when `batches` has ended."""

    @property
    @abstractmethod
    def known_positions_px(self) -> npt.NDArray[np.float64] | None:
        """Where the probe will go, (frames, 2) as (y, x), row i for index i; None where the source cannot tell."""

    @property
    def most_frames(self) -> int | None:
        """An upper bound of its frames, where the source has said one so far."""
        return None

    @property
    def extent_px(self) -> npt.NDArray[np.float64] | None:
        """Lowest and highest (y, x), (2, 2), that the probe will reach, where that is known and positions are not."""
        return None

    @abstractmethod
    def batches(self, batch_frames: int) -> Iterator[FrameBatch | None]:
        """Yield frames as they come, at most so many at once, until there are no more; None while there are none."""


class Perspective(OpenEndedPerspective):
    """A perspective whose frames are all at hand, in one order; one rotation angle or one file.

    Frames may be larger than memory.
    """

    positions_px: npt.NDArray[np.float64]
    """(frames, 2) as (y, x)."""
    dtype: np.dtype[np.generic]
    """Of the frames that `read` returns."""
    ending = Ending.COMPLETE

    @property
    def known_positions_px(self) -> npt.NDArray[np.float64]:
        """All of them."""
        return self.positions_px

    @property
    def most_frames(self) -> int:
        """The number of frames."""
        return len(self)

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.positions_px)

    @abstractmethod
    def read(self, start: int, stop: int) -> npt.NDArray[np.generic]:
        """Return frames start to stop, (stop - start, y, x), in the source's dtype. Reads from disk; may block."""

    def batches(self, batch_frames: int) -> Iterator[FrameBatch]:
        """Yield all frames in order; those that cannot be read as zeros, with a note."""
        for start in range(0, len(self), batch_frames):
            stop = min(start + batch_frames, len(self))
            notes: list[str] = []
            frames = self._read_what_can_be(start, stop, notes)
            indices = np.arange(start, stop, dtype=np.int32)
            yield FrameBatch(indices, self.positions_px[start:stop], frames, tuple(notes))

    def _read_what_can_be(self, start: int, stop: int, notes: list[str]) -> npt.NDArray[np.generic]:
        """Return frames start to stop, those that the source cannot give as zeros: one of them does not end a scan."""
        try:
            return self.read(start, stop)
        except UserError as error:
            if stop - start == 1:
                notes.append(str(error))
                return np.zeros((1, *self.geometry.frame_shape_px), self.dtype)
        return np.concatenate([self._read_what_can_be(index, index + 1, notes) for index in range(start, stop)])


class OpenEndedScan(ABC):
    """A sequence of perspectives of which nobody need know how long it is."""

    name: str

    @property
    @abstractmethod
    def notes(self) -> list[str]:
        """What was estimated, assumed or set aside, in words for a person: of the perspectives looked at so far."""

    @property
    @abstractmethod
    def perspectives(self) -> int | None:
        """How many there will be; None where the source cannot tell."""

    @property
    @abstractmethod
    def frames(self) -> int | None:
        """Frames of all perspectives together; None where the source cannot tell."""

    @abstractmethod
    def arriving(self) -> Iterator[OpenEndedPerspective | None]:
        """Yield perspectives in the order of acquisition, each when it has begun; None while none has.

        The batches of one are to be read to their end before the next perspective is asked for.
        """

    def close(self) -> None:
        """Release what is open; the default holds nothing."""


class Scan(OpenEndedScan):
    """A sequence of perspectives that are all at hand."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of perspectives."""

    @property
    def perspectives(self) -> int:
        """The number of perspectives."""
        return len(self)

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

    def arriving(self) -> Iterator[Perspective]:
        """Yield all perspectives in order."""
        return iter(self)
