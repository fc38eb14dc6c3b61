"""Arrays in `.npy` and `.npz` files, read in parts: never pickled, never all at once."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.readers.frame_stack import Frames, FrameStack
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.kept_array import ARRAY_ERRORS

MAXIMUM_SMALL_BYTES = 2**30
"""Of an array that is read whole: positions, a probe."""


@dataclass(frozen=True)
class ArrayHeader:
    """What a `.npy` file says of its array."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    fortran_order: bool
    start: int
    """Where the values begin."""

    @property
    def nbytes(self) -> int:
        """Return the size of the values."""
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


def read_header(file: IO[bytes], *, where: str) -> ArrayHeader:
    """Read the header of a `.npy` file. Raises `UserError` for arrays that only pickle could read, and for damage."""
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran_order, dtype = read(file)
    except ARRAY_ERRORS as error:
        raise UserError(f"{where}: this cannot be read as a NumPy array: {error}") from error
    if dtype.hasobject:
        raise UserError(f"{where}: the array holds Python objects (pickle), which are not read; save plain numbers")
    return ArrayHeader(shape, dtype, fortran_order, file.tell())


def arrays_in(path: Path) -> dict[str, ArrayHeader]:
    """Return the arrays of an `.npz` file by name. Raises `UserError` if it is not one."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            headers = {}
            for name in names:
                with archive.open(name) as member:
                    headers[name.removesuffix(".npy")] = read_header(member, where=f"{path}: {name}")
            return headers
    except ARRAY_ERRORS as error:
        raise UserError(f"{path}: this cannot be read as an .npz file: {error}") from error


def read_small(path: Path, name: str, header: ArrayHeader) -> npt.NDArray[np.generic]:
    """Read an array of an `.npz` file whole. Raises `UserError` if it is damaged or far too large."""
    if header.nbytes > MAXIMUM_SMALL_BYTES:
        raise UserError(f"{path}: {name} has {header.shape} values, too many for what is expected there")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return np.asarray(arrays[name])
    except ARRAY_ERRORS as error:
        raise UserError(f"{path}: {name} cannot be read: {error}") from error


class NpzFrames:
    """Frames in an `.npz` file, unpacked as they are read: forward is cheap, backward begins anew."""

    def __init__(self, path: Path, name: str, header: ArrayHeader) -> None:
        if header.fortran_order:
            raise UserError(f"{path}: {name} is stored with frames last in memory; save it with np.ascontiguousarray")
        self._path, self._name, self._header = path, name, header
        self._archive = zipfile.ZipFile(path)
        self._member = self._archive.open(f"{name}.npy")

    def read(self, start: int, stop: int) -> Frames:
        """Return frames start to stop. Raises `UserError` if the file is damaged."""
        frame_shape, dtype = self._header.shape[1:], self._header.dtype
        frame_bytes = int(np.prod(frame_shape)) * dtype.itemsize
        stop = min(stop, self._header.shape[0])
        try:
            self._member.seek(self._header.start + start * frame_bytes)
            content = self._member.read(max(stop - start, 0) * frame_bytes)
            return np.frombuffer(content, dtype).reshape(-1, *frame_shape).copy()
        except ARRAY_ERRORS as error:
            raise UserError(f"{self._path}: frames {start} to {stop} cannot be read: {error}") from error

    def stack(self) -> FrameStack:
        """Return the frames as a stack. Raises `UserError` unless their axes are (frame, y, x)."""
        where = f"{self._path}: {self._name}"
        shape = self._header.shape
        if len(shape) != 3:
            raise UserError(f"{where}: frames must have axes (frame, y, x), not shape {shape}")
        return FrameStack(where, shape[0], (shape[1], shape[2]), self._header.dtype, self.read)

    def close(self) -> None:
        """Close the file."""
        self._member.close()
        self._archive.close()


def mapped_array(path: Path) -> npt.NDArray[np.generic]:
    """Return the array of a `.npy` file without reading its values. Raises `UserError` if it is not one."""
    try:
        with path.open("rb") as file:
            header = read_header(file, where=str(path))
        if not header.nbytes:
            return np.empty(header.shape, header.dtype)
        return np.asanyarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except ARRAY_ERRORS as error:
        raise UserError(f"{path}: this cannot be read as a NumPy array: {error}") from error


def is_npz(path: Path) -> bool:
    """Whether `path` is an archive of arrays."""
    return path.suffix == ".npz" and path.is_file() and zipfile.is_zipfile(path)
