"""The frames of a perspective in a file, as they come: a scan need not fit into memory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ptychoflow.streaming.frame_memory import PART_BYTES, frames_within, map_frames

Frames = npt.NDArray[Any]


@dataclass(frozen=True)
class StoredFrames:
    """Frames (n, y, x) in a file of raw pixels, in an order of their own.

    They can still be read when the file has been removed.
    """

    path: Path
    mapped: Frames
    """What is in the file, (m, y, x), read-only."""
    places: npt.NDArray[np.int64]
    """(n,), where in the file each frame lies."""

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.places)

    def __getitem__(self, rows: int | slice | npt.NDArray[np.intp]) -> Frames:
        """Return a copy of one frame (y, x), or of some (n, y, x)."""
        return self.mapped[self.places[rows]]

    def reordered(self, rows: npt.NDArray[np.intp]) -> StoredFrames:
        """Return these rows of them, read from the same file."""
        return StoredFrames(self.path, self.mapped, self.places[rows])


class FrameFile:
    """Appends frames to a file.

    Args:
        path: made anew.
        shape_px: (y, x) of every frame.
    """

    def __init__(self, path: Path, shape_px: tuple[int, int]) -> None:
        self._path, self._shape_px = path, shape_px
        self._dtype: np.dtype[Any] | None = None
        self._count = 0

    def append(self, frames: Frames) -> None:
        """Append frames (n, y, x). Those that need a wider dtype than the ones before have them copied into it.

        Raises:
            OSError: the disk does not take them; none is kept, and they can be appended again.
        """
        if len(frames) == 0:
            return
        if self._dtype is None:
            self._dtype = frames.dtype
        wider = np.promote_types(self._dtype, frames.dtype)
        if wider != self._dtype:
            self._widen(wider)
        _write(self._path, frames.astype(wider, copy=False), after=self._count)
        self._count += len(frames)

    def frames(self) -> StoredFrames:
        """Return all frames so far, in the order in which they were appended."""
        dtype = np.dtype(np.uint8) if self._dtype is None else self._dtype
        mapped = map_frames(self._path, (self._count, *self._shape_px), dtype.str)
        return StoredFrames(self._path, mapped, np.arange(self._count))

    def _widen(self, dtype: np.dtype[Any]) -> None:
        old = self.frames().mapped
        at_once = frames_within(PART_BYTES, self._shape_px, dtype.itemsize)
        copy = self._path.with_suffix(".wider")
        for start in range(0, self._count, at_once):
            _write(copy, old[start : start + at_once].astype(dtype), after=start)
        copy.replace(self._path)
        self._dtype = dtype


def _write(path: Path, frames: Frames, *, after: int) -> None:
    """Write frames behind the first `after` ones of a file."""
    rest = np.ascontiguousarray(frames).data.cast("B")
    offset = after * frames[0].nbytes
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while rest:
            written = os.pwrite(descriptor, rest, offset)
            rest, offset = rest[written:], offset + written
    finally:
        os.close(descriptor)
