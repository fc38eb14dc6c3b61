"""Write a scan to a file while it runs; the file gets its name only when it is complete."""

from __future__ import annotations

import logging
from pathlib import Path
from types import TracebackType
from typing import Self

import h5py
import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.readers import layout
from ptychoflow.acquisition.readers.hdf5 import PARTIAL_SUFFIX
from ptychoflow.acquisition.scan import ELEMENTARY_CHARGE_C, FrameBatch, OpenEndedPerspective
from ptychoflow.streaming.disk_file import DiskFile
from ptychoflow.streaming.durable_file import move_durably
from ptychoflow.streaming.errors import UserError

FRAMES_PER_CHUNK = 16
POSITIONS_PER_CHUNK = 512

log = logging.getLogger(__name__)


class Recorder:
    """Records perspectives one after the other, frames in the order in which they come.

    The file is `PATH.partial` until the context ends without an exception; then it becomes `PATH`. After an exception
    the partial file stays, and no reader takes it for a recording. Every method writes to disk, may block, and raises
    `UserError` when the disk is full or the place cannot be written.

    Args:
        path: of the recording.
        name: of the scan.
        goes_on: a recording of a scan that was stopped may be there; one with at least as many frames replaces it.
    """

    def __init__(self, path: Path, *, name: str = "", goes_on: bool = False) -> None:
        if path.exists() and not (goes_on and was_stopped(path)):
            raise UserError(f"{path}: this file exists and is not overwritten; choose another name or delete it")
        self.stopped = False
        """Whether the scan was stopped before its end."""
        self._path = path
        self._written = 0
        self._partial = path.with_name(path.name + PARTIAL_SUFFIX)
        self._frames: h5py.Dataset | None = None
        self._entry: h5py.Group | None = None
        self._pixel_size_m = (1.0, 1.0)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._disk = DiskFile(self._partial, "w+")
        except OSError as error:
            raise self._failure(error) from error
        self._file = h5py.File(self._disk, "w")
        self._file[layout.VERSION] = layout.CXI_VERSION
        self._file.attrs[layout.NAME_ATTRIBUTE] = name

    def __enter__(self) -> Self:
        """Return the recorder."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete the file, or leave it as a partial one after an exception."""
        if kind is None:
            self._complete()
        else:
            log.warning("%s: the recording was not finished", self._partial)
            self._close()

    def start_perspective(self, perspective: OpenEndedPerspective) -> None:
        """Write everything but the frames of the next perspective, and end the one before."""
        self._end_perspective()
        entry = self._file.create_group(layout.entry_name(perspective.index))
        _create_positions(entry)
        _write_geometry(entry, perspective)
        _write_images(entry, perspective)
        self._raise_failure()
        self._entry, self._pixel_size_m = entry, perspective.geometry.object_pixel_size_m

    def append(self, batch: FrameBatch) -> None:
        """Write frames of the current perspective, with their positions."""
        if self._entry is None:
            raise RuntimeError("no perspective has been started")
        if self._frames is None:
            self._frames = _create_frames(self._entry, batch.frames)
        translation = np.zeros((len(batch), 3))
        translation[:, 1::-1] = batch.positions_px * self._pixel_size_m
        _append(self._frames, batch.frames)
        _append(self._entry[layout.TRANSLATION], translation)
        _append(self._entry[layout.POSITIONS_PX], batch.positions_px)
        self._written += len(batch)
        self._raise_failure()

    def _end_perspective(self) -> None:
        if self._entry is not None and self._frames is None:
            del self._file[self._entry.name]
        self._entry = self._frames = None

    def _complete(self) -> None:
        self._end_perspective()
        self._file.attrs[layout.RECORDING_VERSION_ATTRIBUTE] = layout.RECORDING_VERSION
        self._file.attrs[layout.STOPPED_ATTRIBUTE] = self.stopped
        self._close()
        self._raise_failure()
        try:
            if self._path.exists() and _frames_in(self._path) > self._written:
                log.warning("%s holds more frames than came this time (%d), and stays", self._path, self._written)
                self._partial.unlink()
                return
            move_durably(self._partial, self._path)
        except OSError as error:
            raise self._failure(error) from error
        log.info("%s: recording complete", self._path)

    def _close(self) -> None:
        self._file.close()
        self._disk.close()

    def _raise_failure(self) -> None:
        if self._disk.error is not None:
            raise self._failure(self._disk.error) from self._disk.error

    def _failure(self, error: OSError) -> UserError:
        return UserError(f"{self._path}: the recording cannot be written: {error.strerror}; choose another place")


def was_stopped(path: Path) -> bool:
    """Whether this is the recording of a scan that was stopped before its end."""
    try:
        with h5py.File(path) as file:
            return bool(file.attrs.get(layout.STOPPED_ATTRIBUTE, False))
    except OSError:
        return False


def _frames_in(path: Path) -> int:
    with h5py.File(path) as file:
        return sum(len(entry[layout.FRAMES]) for name, entry in file.items() if name.startswith(layout.ENTRY_PREFIX))


def _append(dataset: h5py.Dataset, rows: npt.NDArray[np.generic]) -> None:
    start = len(dataset)
    dataset.resize(start + len(rows), axis=0)
    dataset[start:] = rows


def _create_positions(entry: h5py.Group) -> None:
    for name, axes in ((layout.TRANSLATION, 3), (layout.POSITIONS_PX, 2)):
        entry.create_dataset(
            name, shape=(0, axes), maxshape=(None, axes), chunks=(POSITIONS_PER_CHUNK, axes), dtype="f8"
        )


def _write_geometry(entry: h5py.Group, perspective: OpenEndedPerspective) -> None:
    geometry = perspective.geometry
    entry[layout.DISTANCE] = geometry.detector_distance_m
    entry[layout.PIXEL_SIZE_Y], entry[layout.PIXEL_SIZE_X] = geometry.detector_pixel_size_m
    entry[layout.ENERGY] = geometry.energy_eV * ELEMENTARY_CHARGE_C
    entry[layout.ENERGY_EV] = geometry.energy_eV
    entry[layout.ANGLE_DEG] = perspective.angle_deg


def _write_images(entry: h5py.Group, perspective: OpenEndedPerspective) -> None:
    if perspective.probe is not None:
        entry[layout.PROBE] = perspective.probe
    if perspective.mask is not None:
        entry[layout.MASK] = perspective.mask.astype(np.uint32)
    if perspective.ground_truth is not None:
        entry[layout.OBJECT] = perspective.ground_truth.values
        entry[layout.OBJECT_ORIGIN_PX] = perspective.ground_truth.origin_px


def _create_frames(entry: h5py.Group, frames: npt.NDArray[np.generic]) -> h5py.Dataset:
    """Compress with what every HDF5 library can read, at the fastest level."""
    frame_shape = frames.shape[1:]
    return entry.create_dataset(
        layout.FRAMES,
        shape=(0, *frame_shape),
        maxshape=(None, *frame_shape),
        chunks=(FRAMES_PER_CHUNK, *frame_shape),
        dtype=frames.dtype,
        compression="gzip",
        compression_opts=1,
        shuffle=True,
    )
