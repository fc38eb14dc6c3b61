"""Frames of one perspective as the edge holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from ptychoflow.streaming.codec import MalformedMessage
from ptychoflow.streaming.messages import FrameRole

COLUMN_SHAPES: dict[str, tuple[int, ...]] = {"index": (), "role": (), "position_px": (2,)}


@dataclass(frozen=True)
class FrameBlock:
    """Some frames of one perspective, in acquisition order."""

    index: npt.NDArray[np.int32]
    """(n,)"""
    role: npt.NDArray[np.uint8]
    """(n,) of FrameRole."""
    position_px: npt.NDArray[np.float64]
    """(n, 2) as (y, x)."""
    diffraction: npt.NDArray[Any]
    """(n, y, x) counts."""

    def __len__(self) -> int:
        return len(self.index)

    @property
    def held_out(self) -> npt.NDArray[np.bool_]:
        """Which frames are held out, bool (n,)."""
        return np.equal(self.role, FrameRole.HELD_OUT)

    def select(self, chosen: npt.NDArray[np.bool_]) -> FrameBlock:
        """Return the frames for which `chosen`, bool (n,), is true; itself where that is all of them."""
        if chosen.all():
            return self
        return FrameBlock(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def head(self, frames: int) -> FrameBlock:
        """Return the first `frames` frames, a view."""
        return FrameBlock(*(getattr(self, field.name)[:frames] for field in fields(self)))

    def tail(self, start: int) -> FrameBlock:
        """Return the frames from number `start` on, a view."""
        return FrameBlock(*(getattr(self, field.name)[start:] for field in fields(self)))


def block_from_arrays(arrays: Mapping[str, npt.NDArray[Any]], frame_shape_px: tuple[int, int]) -> FrameBlock:
    """Take the arrays of a `Frames` message as they are, without a copy.

    Raises:
        MalformedMessage: an array is missing or of the wrong shape, or a position is not finite.
    """
    expected = COLUMN_SHAPES | {"diffraction": frame_shape_px}
    if missing := expected.keys() - arrays.keys():
        raise MalformedMessage(f"frames without {', '.join(sorted(missing))}")
    frames = len(arrays["index"])
    for name, shape in expected.items():
        if arrays[name].shape != (frames, *shape):
            raise MalformedMessage(f"frames: {name} is {arrays[name].shape}, expected {(frames, *shape)}")
    if not np.isfinite(arrays["position_px"]).all():
        raise MalformedMessage("frames: a position is not finite")
    return FrameBlock(*(arrays[field.name] for field in fields(FrameBlock)))


def join(blocks: Sequence[FrameBlock]) -> FrameBlock:
    """Return one block of all frames; copies unless there is only one block."""
    if len(blocks) == 1:
        return blocks[0]
    columns = ([getattr(block, field.name) for block in blocks] for field in fields(FrameBlock))
    return FrameBlock(*(np.concatenate(column) for column in columns))
