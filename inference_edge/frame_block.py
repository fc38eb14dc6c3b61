"""Some frames of one perspective, or images of one task, as an edge holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from ptychoflow.streaming.codec import MalformedMessage


class Column(NamedTuple):
    """What an array of a message must be: one entry a frame."""

    shape: tuple[int, ...] = ()
    """Of one frame's entry."""
    dtype: str | None = None
    """None allows every dtype that can be sent."""


ID_COLUMNS = {"index": Column(dtype="int32"), "role": Column(dtype="uint8")}


@dataclass(frozen=True)
class FrameBlock:
    """What all frames have; in the order of acquisition."""

    index: npt.NDArray[np.int32]
    """(n,)"""
    role: npt.NDArray[np.uint8]
    """(n,) of FrameRole."""

    def __len__(self) -> int:
        return len(self.index)

    @property
    def nbytes(self) -> int:
        """Memory that the arrays take."""
        return sum(column.nbytes for column in vars(self).values())

    def select(self, chosen: npt.NDArray[np.bool_]) -> Self:
        """Return the frames for which `chosen`, bool (n,), is true; itself where that is all of them."""
        return self if chosen.all() else self._cut(chosen)

    def head(self, frames: int) -> Self:
        """Return the first `frames` frames, a view."""
        return self._cut(slice(frames))

    def tail(self, start: int) -> Self:
        """Return the frames from number `start` on, a view."""
        return self._cut(slice(start, None))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], columns: Mapping[str, Column]) -> Self:
        """Take the arrays of a `Frames` message as they are, without a copy.

        Args:
            arrays: by the names of this class's fields.
            columns: what the arrays must be beside `index` and `role`.

        Raises:
            MalformedMessage: an array is missing, or of the wrong shape or dtype.
        """
        columns = ID_COLUMNS | dict(columns)
        if missing := columns.keys() - arrays.keys():
            raise MalformedMessage(f"frames without {', '.join(sorted(missing))}")
        frames = arrays["index"].size
        for name, column in columns.items():
            array, dtype = arrays[name], column.dtype or arrays[name].dtype
            if array.shape != (frames, *column.shape) or array.dtype != dtype:
                raise MalformedMessage(
                    f"frames: {name} is {array.dtype} {array.shape}, expected {dtype} {(frames, *column.shape)}"
                )
        return cls(**{name: arrays[name] for name in columns})

    @classmethod
    def join(cls, blocks: Sequence[Self]) -> Self:
        """Return one block of all frames; copies unless there is only one block."""
        if len(blocks) == 1:
            return blocks[0]
        columns = ([getattr(block, field.name) for block in blocks] for field in fields(cls))
        return cls(*(np.concatenate(column) for column in columns))

    def _cut(self, chosen: slice | npt.NDArray[np.bool_]) -> Self:
        return type(self)(*(column[chosen] for column in vars(self).values()))
