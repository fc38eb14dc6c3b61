"""One file, from when it can be read to its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import h5py
import numpy as np

from ptychoflow.acquisition.detectors.hdf5_swmr.files import Stage, Watched, find_inside, open_inside, stage_of
from ptychoflow.acquisition.detectors.hdf5_swmr.image import DTYPES, check_frames
from ptychoflow.acquisition.detectors.hdf5_swmr.messages import (
    MOST_ROWS,
    FileBegan,
    FileEnded,
    FileUnusable,
    FramesWritten,
    Message,
    PositionsWritten,
)
from ptychoflow.acquisition.detectors.hdf5_swmr.settings import Hdf5SwmrSettings
from ptychoflow.acquisition.detectors.hdf5_swmr.written_positions import WrittenPositions
from ptychoflow.acquisition.readers.hdf5 import HDF5_ERRORS, one_line
from ptychoflow.streaming.errors import UserError

GONE = "it was moved away before it was read"


@dataclass
class Told:
    """What was told of a file: that it is there, how many rows of it, that it is over."""

    begun: bool = False
    frames: int = 0
    positions: int = 0
    over: bool = False


class FollowedFile:
    """A file that is read as far as it is written. Close it; a context manager.

    Args:
        settings: of the source.
        name: the file's.
        told: how much of it was told before.
    """

    def __init__(self, settings: Hdf5SwmrSettings, name: str, told: Told) -> None:
        self.name = name
        self.over = False
        """Nothing more comes."""
        self.gone = False
        """It was moved away; what comes under its name is another one."""
        self.closed = False
        """Nobody is writing it; it is over soon, unless somebody opens it again."""
        self._settings = settings
        self._watched = Watched()
        self._opened = ExitStack()
        self._open = False
        self._frames: h5py.Dataset | None = None
        self._positions: WrittenPositions | None = None
        self._begun_before, self._frames_told, self._positions_told = told.begun, told.frames, told.positions

    def advance(self) -> Iterator[Message]:
        """Yield what has been written since this was called last."""
        settings = self._settings
        stage = stage_of(settings.folder / self.name, settle_s=settings.settle_s, watched=self._watched)
        self.closed = stage is Stage.CLOSED
        if stage is Stage.ABSENT:
            self.over = self.gone = True
            yield FileEnded(self.name, complete=False) if self._begun else FileUnusable(self.name, GONE, gone=True)
            return
        try:
            if not self._open:
                if stage in {Stage.UNREADABLE, Stage.CLOSED} or not self._can_open():
                    return
                began = self._begin()
                if not self._begun_before:
                    yield began
            yield from self._new_rows()
        except (*HDF5_ERRORS, UserError) as error:
            self.over = True
            yield FileUnusable(self.name, one_line(error)[:500])
            if self._begun:
                yield FileEnded(self.name, complete=False)
            return
        if stage is Stage.WRITTEN:  # asked before the rows were: no more can have come
            self.over = True
            yield FileEnded(self.name, complete=True)

    def give_up(self) -> Iterator[Message]:
        """Yield that the file is over although nobody has closed it."""
        self.over = True
        if self._begun:
            yield FileEnded(self.name, complete=False)
        else:
            yield FileUnusable(self.name, "it was never finished, or is no HDF5 file")

    def __enter__(self) -> FollowedFile:
        """Return itself."""
        return self

    def __exit__(self, *_raised: object) -> None:
        """Close the file."""
        self._opened.close()

    @property
    def _begun(self) -> bool:
        """Whether it was told that the file is there, by this receiver or one before."""
        return self._open or self._begun_before

    def _can_open(self) -> bool:
        """Open the file; it may still lack its end, in a copy that is going on."""
        try:
            self._file = self._opened.enter_context(open_inside(self._settings.folder, self.name))
        except ValueError:
            return False
        return True

    def _begin(self) -> FileBegan:
        folder, shape_px = self._settings.folder, None
        if self._settings.frames is not None:
            self._frames = find_inside(self._file, self._settings.frames, folder)
            shape_px = self._shape_px(self._frames)
        if self._settings.positions is not None:
            self._positions = WrittenPositions(
                self._file, self._settings.positions, folder, max_chunk_bytes=self._settings.max_chunk_bytes
            )
        self._open = True
        return FileBegan(self.name, shape_px)

    def _shape_px(self, frames: h5py.Dataset) -> tuple[int, int]:
        where = f"{self._file.filename}: {frames.name}"
        if frames.ndim != 3 or frames.dtype.name not in DTYPES:
            raise ValueError(
                f"{where}: frames (frame, y, x) of numbers were expected, not {frames.dtype} {frames.shape}"
            )
        height, width = frames.shape[1:]
        if not 0 < height * width <= self._settings.max_frame_px:
            raise ValueError(f"{where}: frames of {height} × {width} pixels are not taken; see max_frame_px")
        check_frames(frames, (height, width), frames.dtype, self._settings.max_chunk_bytes)
        return height, width

    def _new_rows(self) -> Iterator[Message]:
        if self._positions is not None:
            count = self._positions.refresh()
            while self._positions_told < count:
                stop = min(self._positions_told + MOST_ROWS, count)
                numbers, positions_m = self._positions.read(self._positions_told, stop)
                self._positions_told = stop
                yield PositionsWritten(self.name, numbers.astype("<i8").tobytes(), positions_m.astype("<f8").tobytes())
        if self._frames is not None:
            self._frames.refresh()
            count = len(self._frames)
            shape_px, dtype = self._frames.shape[1:], np.dtype(self._frames.dtype).name
            while self._frames_told < count:
                rows = min(MOST_ROWS, count - self._frames_told)
                first, self._frames_told = self._frames_told, self._frames_told + rows
                yield FramesWritten(self.name, str(self._settings.frames), shape_px, dtype, first, rows)
