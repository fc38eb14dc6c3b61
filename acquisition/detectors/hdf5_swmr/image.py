"""A frame that stays in its file until it is needed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.detectors.hdf5_swmr.files import Stage, find_inside, open_inside, stage_of
from ptychoflow.acquisition.readers.hdf5 import HDF5_ERRORS, one_line

DTYPES = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float32", "float64")
"""Of frames that are taken."""
FILES_OPEN = 8
AGAIN_AFTER_S = 0.05


@dataclass(frozen=True)
class Hdf5Image:
    """A row of a dataset (frame, y, x)."""

    folder: Path
    """Nothing outside of it is read."""
    name: str
    """File, from the folder on."""
    dataset: str
    row: int
    shape_px: tuple[int, int]
    dtype: np.dtype[np.generic]
    max_chunk_bytes: int
    patience_s: float = 0.0
    """How long to wait for what was announced, as long as the file is being written."""

    def decode(self) -> npt.NDArray[np.generic]:
        """Read the frame.

        Raises:
            ValueError: it is not there, is not what was announced, or is damaged.
        """
        give_up_s = time.monotonic() + self.patience_s
        while True:
            try:
                return self._read()
            except ValueError:
                if time.monotonic() >= give_up_s or not self._is_being_written():
                    raise
                time.sleep(AGAIN_AFTER_S)

    def _is_being_written(self) -> bool:
        path = self.folder / self.name
        try:
            is_file = path.is_file()
        except OSError:  # a name that is none
            return False
        return is_file and stage_of(path, settle_s=self.patience_s) not in {Stage.WRITTEN, Stage.ABSENT}

    def _read(self) -> npt.NDArray[np.generic]:
        try:
            dataset = _open(self.folder, self.name, self.dataset, (self.folder / self.name).stat().st_ino)
            check_frames(dataset, self.shape_px, self.dtype, self.max_chunk_bytes)
            if self.row >= len(dataset):
                dataset.refresh()
            frame = np.asarray(dataset[self.row])
        except (*HDF5_ERRORS, IndexError, MemoryError) as error:
            raise ValueError(f"frame {self.row} of {self.folder / self.name}: {one_line(error)}") from error
        return frame


def check_frames(
    dataset: h5py.Dataset, shape_px: tuple[int, int], dtype: np.dtype[np.generic], max_chunk_bytes: int
) -> None:
    """Raise ValueError unless the dataset holds frames like these, in chunks that may be decompressed."""
    if dataset.ndim != 3 or dataset.shape[1:] != shape_px or dataset.dtype != dtype:
        raise ValueError(f"{dataset.name} is {dataset.dtype} {dataset.shape}, not frames of {dtype} {shape_px}")
    chunk_bytes = int(np.prod(dataset.chunks or (1,), dtype=np.float64)) * dataset.dtype.itemsize
    if chunk_bytes > max_chunk_bytes:
        raise ValueError(
            f"{dataset.name} is stored in chunks of {chunk_bytes} bytes; at most {max_chunk_bytes} are read"
        )


@lru_cache(maxsize=FILES_OPEN)
def _open(folder: Path, name: str, dataset: str, _inode: int) -> h5py.Dataset:
    """Return a dataset, opened once for many frames, and anew for another file of the same name."""
    return find_inside(open_inside(folder, name), dataset, folder)
