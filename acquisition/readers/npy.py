"""Frames in a `.npy` file, or in several of a folder; positions and geometry are given by settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from ptychoflow.acquisition.readers.contents import FileContents
from ptychoflow.acquisition.readers.folders import files_in
from ptychoflow.acquisition.readers.frame_stack import Frames, FrameStack, chained, stack_of_array
from ptychoflow.acquisition.readers.numpy_arrays import mapped_array
from ptychoflow.acquisition.readers.reader import FormatReader, ScanFiles
from ptychoflow.acquisition.readers.tiff import ENDINGS as TIFF_ENDINGS
from ptychoflow.streaming.errors import UserError

SMALLEST_FRAME_PX = 8


class NpyReader(FormatReader):
    """Reads arrays (frame, y, x), or one frame (y, x) from each file of a folder."""

    format_name: ClassVar[str] = "npy"

    @staticmethod
    def recognises(files: ScanFiles) -> bool:
        """Whether it is a `.npy` file, or a folder that holds some: frames among them, if TIFF files lie there, too."""
        paths = _paths(files.path)
        if not paths or not files.path.is_dir() or not files_in(files.path, TIFF_ENDINGS):
            return bool(paths)
        return any(_stack(path, []) is not None for path in paths)

    def read(self, index: int) -> FileContents:
        """Return the frames, files in the order of the numbers in their names. Raises `UserError` if there are none."""
        notes: list[str] = []
        stacks = [stack for path in _paths(self._files.path) if (stack := _stack(path, notes)) is not None]
        if not stacks:
            raise UserError(f"{self._files.path}: no array in it has the axes of frames, (frame, y, x) or (y, x)")
        return FileContents(where=str(self._files.path), frames=chained(stacks), notes=notes)


def _paths(path: Path) -> list[Path]:
    if path.is_dir():
        return files_in(path, (".npy",))
    return [path] if path.suffix == ".npy" else []


def _stack(path: Path, notes: list[str]) -> FrameStack | None:
    """Return the frames of a file, which is open only while it is read: a folder may hold many thousands."""
    array = mapped_array(path)
    if array.ndim not in {3, 4} and not (array.ndim == 2 and min(array.shape) >= SMALLEST_FRAME_PX):
        notes.append(f"{path.name} has shape {array.shape} and is not taken for frames")
        return None
    return replace(_frames(array, path), read=lambda start, stop: _frames(mapped_array(path), path).read(start, stop))


def _frames(array: Frames, path: Path) -> FrameStack:
    return stack_of_array(array[None] if array.ndim == 2 else array, where=str(path))
