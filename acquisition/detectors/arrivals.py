"""What decoders make of the messages of live sources, whatever the wire: frames, positions, beginnings and ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.scan import Ending

REASON_LENGTH = 300


@dataclass(frozen=True)
class SeriesHeader:
    """What a detector says of a series before its first frame; None where it does not. Pairs are (y, x)."""

    shape_px: tuple[int, int] | None = None
    energy_eV: float | None = None
    detector_distance_m: float | None = None
    detector_pixel_size_m: tuple[float, float] | None = None
    beam_centre_px: tuple[float, float] | None = None
    """Pixel of the direct beam, in the frame as sent."""
    angle_deg: float | None = None
    mask: npt.NDArray[np.bool_] | None = None
    """(y, x), True for pixels that must be ignored."""
    most_frames: int | None = None
    """An upper bound: free runs set more than they need."""

    def mask_for(self, shape_px: tuple[int, ...]) -> npt.NDArray[np.bool_] | None:
        """Return the mask if it fits frames of this shape."""
        return self.mask if self.mask is not None and self.mask.shape == shape_px else None

    def completed_by(self, other: SeriesHeader) -> SeriesHeader:
        """Return this header with what only `other` says."""
        return replace(other, **{name: value for name, value in vars(self).items() if value is not None})


class EncodedImage(Protocol):
    """A frame as it came, decoded when it is needed, if need be in another process: it can be pickled.

    Shape, dtype and size of the encoded bytes have been checked against the bounds of the source.
    """

    @property
    def shape_px(self) -> tuple[int, int]:
        """(y, x)."""

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Of the decoded frame."""

    def decode(self) -> npt.NDArray[np.generic]:
        """Return the frame (y, x).

        Raises:
            ValueError: the bytes are damaged; one line says how.
        """


@dataclass(frozen=True)
class SeriesBegan:
    """A detector began a series. May be missing, and may come again for the same series."""

    series: str
    header: SeriesHeader


@dataclass(frozen=True)
class FrameCame:
    """One frame of a series."""

    series: str
    number: int
    """As the source counts; `join.first_frame` says the number of the first one."""
    image: EncodedImage


@dataclass(frozen=True)
class FramesCame:
    """Frames of a series that came one after the other, with nothing else in between: as many `FrameCame`."""

    series: str
    numbers: npt.NDArray[np.int64]
    """(n,) as the source counts."""
    images: Sequence[EncodedImage]
    """Slices of it are cheap."""
    received_at_s: npt.NDArray[np.float64]
    """(n,), not falling."""

    def __iter__(self) -> Iterator[tuple[FrameCame, float]]:
        """Yield one by one, and when each was received."""
        for number, image, at_s in zip(self.numbers.tolist(), self.images, self.received_at_s.tolist(), strict=True):
            yield FrameCame(self.series, number, image), at_s


@dataclass(frozen=True)
class SeriesEnded:
    """A series is over: COMPLETE or ABORTED. May come twice."""

    series: str
    ending: Ending


@dataclass(frozen=True)
class PositionsBegan:
    """A source of positions began to send those of one series."""

    run: str
    """The source's own name of this stretch of positions; new for every one."""
    series: str | None
    """The detector's series that they belong to, or its number, where the source knows it; else they are told by when
    they begin."""
    total: int | None = None
    """How many samples there will be, where that is known."""
    captured: bool = False
    """Whether samples and frames come by the same triggers, and so always equally far apart in time."""


@dataclass(frozen=True)
class PositionsCame:
    """Positions of consecutive samples, or of samples with stated numbers."""

    run: str
    numbers: npt.NDArray[np.int64]
    """(n,) as the source counts; `join.first_sample` says the number of the first one."""
    positions_m: npt.NDArray[np.float64]
    """(n, 2) as (y, x); what is no number says that the position is not known."""


@dataclass(frozen=True)
class PositionsEnded:
    """No more positions come in this run."""

    run: str
    ending: Ending
    lost: int = 0
    """Samples that the source itself could not capture."""


@dataclass(frozen=True)
class PositionsKnown:
    """Positions that were known before: all those of every series, of one that has begun and of those to come."""

    numbers: npt.NDArray[np.int64]
    """(n,), all different."""
    positions_m: npt.NDArray[np.float64]
    """(n, 2) as (y, x)."""


@dataclass(frozen=True)
class Malformed:
    """A message that could not be understood: counted and told, and nothing else."""

    reason: str
    """One line."""

    @classmethod
    def because(cls, reason: object) -> Malformed:
        """Return one line, of bounded length whatever it quotes."""
        return cls(" ".join(str(reason).split())[:REASON_LENGTH])


Arrival = (
    SeriesBegan | FrameCame | SeriesEnded | PositionsBegan | PositionsCame | PositionsEnded | PositionsKnown | Malformed
)
