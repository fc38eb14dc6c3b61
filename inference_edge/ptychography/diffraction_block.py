"""Diffraction frames of one perspective."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ptychoflow.inference_edge.frame_block import Column, FrameBlock
from ptychoflow.streaming.codec import Arrays, MalformedMessage
from ptychoflow.streaming.messages import FrameRole

FARTHEST_PX = 2.0**40
"""Positions farther than this say little of parts of a pixel any more, and in the end cannot be computed with."""
_HELD_OUT = np.uint8(FrameRole.HELD_OUT)


@dataclass(frozen=True)
class DiffractionBlock(FrameBlock):
    """Frames with the positions that they were taken at."""

    position_px: npt.NDArray[np.float64]
    """(n, 2) as (y, x)."""
    diffraction: npt.NDArray[Any]
    """(n, y, x) counts."""

    @property
    def held_out(self) -> npt.NDArray[np.bool_]:
        """Which frames are held out, bool (n,)."""
        return np.equal(self.role, _HELD_OUT)


def diffraction_block(arrays: Arrays, frame_shape_px: tuple[int, int]) -> DiffractionBlock:
    """Take the arrays of a `Frames` message as they are, without a copy.

    Raises:
        MalformedMessage: an array is missing or of the wrong shape or dtype, or a position is nowhere.
    """
    columns = {"position_px": Column((2,), "float64"), "diffraction": Column(frame_shape_px)}
    block = DiffractionBlock.from_arrays(arrays, columns)
    if np.iscomplexobj(block.diffraction):
        raise MalformedMessage(f"frames: diffraction is {block.diffraction.dtype}, expected real counts")
    # NaN is not less either
    if not (np.abs(block.position_px) < FARTHEST_PX).all():
        raise MalformedMessage("frames: a position is not finite, or farther away than any scan reaches")
    return block
