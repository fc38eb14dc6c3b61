"""Frames in TIFF files: one file of many pages, or a folder of files; positions and geometry are given by settings."""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from typing import ClassVar

import numpy as np
import tifffile

from ptychoflow.acquisition.readers.contents import FileContents
from ptychoflow.acquisition.readers.folders import files_in
from ptychoflow.acquisition.readers.frame_stack import Frames, FrameStack
from ptychoflow.acquisition.readers.hdf5 import one_line
from ptychoflow.acquisition.readers.reader import FormatReader, ScanFiles
from ptychoflow.streaming.errors import UserError

ENDINGS = (".tif", ".tiff")
# What tifffile raises for damaged files: it takes tags for what they should be.
TIFF_ERRORS = (
    *(OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, ArithmeticError, MemoryError),
    *(struct.error, zlib.error, tifffile.TiffFileError),
)


class TiffReader(FormatReader):
    """Reads pages as frames."""

    format_name: ClassVar[str] = "TIFF"

    @staticmethod
    def recognises(files: ScanFiles) -> bool:
        """Whether it is a TIFF file, or a folder that holds some."""
        return bool(_paths(files.path))

    def read(self, index: int) -> FileContents:
        """Return the pages of all files, in the order of the numbers in their names.

        Raises `UserError` if a file is no TIFF, or has pages of another shape or type.
        """
        paths = _paths(self._files.path)
        pages = [_Pages(path) for path in paths]
        first = pages[0]
        for other in pages[1:]:
            if (other.shape_px, other.dtype) != (first.shape_px, first.dtype):
                raise UserError(
                    f"{other.path}: pages are {other.dtype} of {other.shape_px} pixels, but those of {first.path.name} "
                    f"are {first.dtype} of {first.shape_px}"
                )
        return FileContents(where=str(self._files.path), frames=_stack(str(self._files.path), pages))


class _Pages:
    """What one file holds; it is opened again for every read, because a folder may hold thousands."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with tifffile.TiffFile(path) as file:
                page = file.pages[0]
                shape = page.shape
                self.count = len(file.pages)
                self.dtype = np.dtype(page.dtype) if page.dtype is not None else np.dtype(object)
        except TIFF_ERRORS as error:
            raise UserError(f"{path}: this cannot be read as TIFF: {one_line(error)}") from error
        if len(shape) != 2:
            raise UserError(f"{path}: a page must be one frame (y, x), not shape {shape}")
        self.shape_px = (shape[0], shape[1])

    def read(self, start: int, stop: int) -> list[Frames]:
        try:
            with tifffile.TiffFile(self.path) as file:
                pages = [file.pages[number].asarray() for number in range(start, stop)]
        except TIFF_ERRORS as error:
            raise UserError(f"{self.path}: pages {start} to {stop} cannot be read: {one_line(error)}") from error
        for page in pages:
            if page.shape != self.shape_px or page.dtype != self.dtype:
                raise UserError(
                    f"{self.path}: pages differ: {page.dtype} of {page.shape} pixels, "
                    f"{self.dtype} of {self.shape_px} pixels"
                )
        return pages


def _stack(where: str, files: list[_Pages]) -> FrameStack:
    ends = list(accumulate(file.count for file in files))

    def read(start: int, stop: int) -> Frames:
        frames: list[Frames] = []
        stop = min(stop, ends[-1])
        place = bisect_right(ends, start)
        while start < stop:
            low = ends[place] - files[place].count
            high = min(stop, ends[place])
            frames += files[place].read(start - low, high - low)
            start, place = high, place + 1
        return np.stack(frames) if frames else np.empty((0, *files[0].shape_px), files[0].dtype)

    return FrameStack(where, ends[-1], files[0].shape_px, files[0].dtype, read)


def _paths(path: Path) -> list[Path]:
    if path.is_dir():
        return files_in(path, ENDINGS)
    return [path] if path.suffix.lower() in ENDINGS else []
