"""What every phase-retrieval engine takes and gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.scan import ObjectImage
from ptychoflow.streaming.errors import UserError

MARGIN_PX = 2
FAILURES = (ArithmeticError, MemoryError, OSError, RuntimeError, ValueError)
"""What a retrieval, or what it is given, may fail with beside a `UserError`; others are mistakes of the program."""


def require_square(shape_px: tuple[int, int]) -> None:
    """Raise `UserError` if frames of this shape (y, x) are not square: tike takes no others."""
    height, width = shape_px
    if height != width:
        raise UserError(f"tike needs square frames, not {height}x{width}: crop them, or use pty-chi")


@dataclass(frozen=True)
class Measurement:
    """The frames of one perspective, in the conventions of `ptychoflow.acquisition.scan`."""

    frames: npt.NDArray[np.generic]
    """Counts (n, y, x), zero frequency at pixel (y // 2, x // 2)."""
    positions_px: npt.NDArray[np.float64]
    """(n, 2) as (y, x)."""
    probe: npt.NDArray[np.complex64]
    """Starting probe (mode, y, x); its power does not matter."""
    mask: npt.NDArray[np.bool_] | None
    """(y, x), True for pixels that must be ignored."""
    object_image: ObjectImage | None = None
    """Object to start from, of any size; None starts from void."""
    enough_loss: float | None = None
    """No more epochs after one whose loss is not above this, from an engine that tells losses."""


class Interrupted(Exception):
    """Phase retrieval was given up because something else is wanted."""


@dataclass(frozen=True)
class Reconstruction:
    """What phase retrieval found. The object is in no particular gauge."""

    object_image: ObjectImage
    probe: npt.NDArray[np.complex64]
    """Refined probe (mode, y, x), in the square root of counts per pixel under a unitary transform."""
    epochs: int = 0
    """How many it took; 0 where nothing was retrieved."""
    loss: float | None = None
    """Of the last epoch, comparable within a scan; None from an engine that does not tell."""


def never() -> bool:
    """Interrupt nothing."""
    return False


class Engine(Protocol):
    """An iterative phase-retrieval algorithm."""

    def reconstruct(self, measurement: Measurement, *, interrupted: Callable[[], bool] = never) -> Reconstruction:
        """Return object and probe. Blocks until all epochs are done, or the loss is low enough.

        Raises:
            Interrupted: `interrupted`, which is asked now and then, has become true.
            UserError: what the engine needs is not installed or not there.
        """
        ...


@dataclass(frozen=True)
class Canvas:
    """The object grid that holds the patches of all positions with a margin; its origin is a whole pixel."""

    origin_px: tuple[int, int]
    shape_px: tuple[int, int]


def canvas_for(positions_px: npt.NDArray[np.float64], frame_shape_px: tuple[int, int]) -> Canvas:
    """Return the canvas for patches of `frame_shape_px` at `positions_px` (n, 2)."""
    frame = np.asarray(frame_shape_px)
    start = np.floor(positions_px.min(axis=0)).astype(int) - frame // 2 - MARGIN_PX
    stop = np.ceil(positions_px.max(axis=0)).astype(int) - frame // 2 + frame + MARGIN_PX
    height, width = stop - start
    return Canvas((int(start[0]), int(start[1])), (int(height), int(width)))


def starting_object(measurement: Measurement, canvas: Canvas) -> npt.NDArray[np.complex64]:
    """Return the object (y, x) that phase retrieval starts from: the one given, as far as it lies on the canvas."""
    values = np.ones(canvas.shape_px, np.complex64)
    if (image := measurement.object_image) is not None:
        top, left = (round(origin - of) for origin, of in zip(image.origin_px, canvas.origin_px, strict=True))
        part = image.values[max(0, -top) :, max(0, -left) :]
        target = values[max(0, top) :, max(0, left) :][: part.shape[0], : part.shape[1]]
        target[:] = part[: target.shape[0], : target.shape[1]]
    return values
