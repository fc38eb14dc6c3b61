"""Writes a file in SWMR mode for every series, as a detector's file writer does."""

from __future__ import annotations

import threading
import uuid
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.detectors.hdf5_swmr.settings import Hdf5SwmrSimulatorSettings
from ptychoflow.acquisition.detectors.interface import Simulator
from ptychoflow.acquisition.scan import Perspective
from ptychoflow.streaming.errors import writing

ROWS = 1024


class Hdf5SwmrSimulator(Simulator):
    """Writes `SESSION_series_NNNN.h5`. A scan that is broken off is a file with fewer frames, closed like any other.

    A frame that is not sent leaves a row of zeros, so that the rows behind it keep their numbers.
    """

    def __init__(self, settings: Hdf5SwmrSimulatorSettings) -> None:
        self._settings = settings
        self._session = uuid.uuid4().hex[:8]
        self._lock = threading.Lock()
        self._file: h5py.File | None = None
        self.path: Path | None = None
        """Of the file that was begun last."""
        self._written = 0
        with writing(settings.folder):
            settings.folder.mkdir(parents=True, exist_ok=True)

    def begin(self, perspective: Perspective, *, series: int) -> None:
        """Make the file of a series. Waits for nobody: who comes later reads it from its beginning."""
        height, width = perspective.geometry.frame_shape_px
        dtype = perspective.read(0, 1).dtype
        path = self._settings.folder / f"{self._session}_series_{series:04}.h5"
        with self._lock, writing(path):
            file = h5py.File(path, "w", libver="latest", locking=False)
            if self._settings.frames is not None:
                _growing(file, self._settings.frames, (height, width), dtype, rows_per_chunk=1)
            if self._settings.positions is not None:
                positions = _growing(file, self._settings.positions, (2,), np.dtype(np.float64), rows_per_chunk=ROWS)
                positions.attrs["units"] = self._settings.unit.value
            file.swmr_mode = True
            self._file, self._written, self.path = file, 0, path

    def send(self, index: int, frame: npt.NDArray[np.generic], position_m: tuple[float, float]) -> None:
        """Write a frame, its position, or both."""
        with self._lock:
            if self._file is None:
                return
            y, x = (value / self._settings.unit.metres for value in position_m)
            self._written += 1
            flush = self._written % self._settings.frames_per_flush == 0
            for path, value in ((self._settings.frames, frame), (self._settings.positions, (x, y))):
                if path is not None:
                    dataset = self._file[path]
                    dataset.resize(max(index + 1, len(dataset)), axis=0)
                    dataset[index] = value
                    if flush:
                        dataset.flush()

    def end(self, *, aborted: bool) -> None:
        """Close the file."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def close(self) -> None:
        """Close the file, if one is open."""
        self.end(aborted=True)


def _growing(
    file: h5py.File, path: str, row: tuple[int, ...], dtype: np.dtype[np.generic], *, rows_per_chunk: int
) -> h5py.Dataset:
    return file.create_dataset(path, (0, *row), dtype, maxshape=(None, *row), chunks=(rows_per_chunk, *row))
