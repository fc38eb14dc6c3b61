"""Write a scan to a file while it runs; the file gets its name only when it is complete."""

from __future__ import annotations

import logging
from pathlib import Path
from types import TracebackType
from typing import Self

import h5py
import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.disk_file import DiskFile
from ptychoflow.acquisition.readers import layout
from ptychoflow.acquisition.readers.hdf5 import PARTIAL_SUFFIX
from ptychoflow.acquisition.scan import ELEMENTARY_CHARGE_C, Perspective
from ptychoflow.streaming.durable_file import move_durably
from ptychoflow.streaming.errors import UserError

FRAMES_PER_CHUNK = 16

log = logging.getLogger(__name__)


class Recorder:
    """Records perspectives one after the other, frames in order of their index.

    The file is `PATH.partial` until the context ends without an exception; then it becomes `PATH`. After an exception
    the partial file stays, and no reader takes it for a recording. Every method writes to disk, may block, and raises
    `UserError` when the disk is full or the place cannot be written.
    """

    def __init__(self, path: Path, *, name: str = "") -> None:
        if path.exists():
            raise UserError(f"{path}: this file exists and is not overwritten; choose another name or delete it")
        self._path = path
        self._partial = path.with_name(path.name + PARTIAL_SUFFIX)
        self._frames: h5py.Dataset | None = None
        self._entry: h5py.Group | None = None
        self._positions = 0
        self._recorded = 0
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

    def start_perspective(self, perspective: Perspective) -> None:
        """Write everything but the frames of the next perspective, and end the one before."""
        self._end_perspective()
        entry = self._file.create_group(layout.entry_name(perspective.index))
        _write_positions(entry, perspective)
        _write_geometry(entry, perspective)
        _write_images(entry, perspective)
        self._raise_failure()
        self._entry, self._positions, self._recorded = entry, len(perspective), 0

    def append(self, frames: npt.NDArray[np.generic], *, start: int) -> None:
        """Write frames (n, y, x) with indices `start`, `start + 1`, ... of the current perspective."""
        if self._entry is None:
            raise RuntimeError("no perspective has been started")
        if start != self._recorded or start + len(frames) > self._positions:
            raise ValueError(f"frames {start} to {start + len(frames)} do not follow {self._recorded} recorded ones")
        if self._frames is None:
            self._frames = _create_frames(self._entry, frames)
        self._frames.resize(start + len(frames), axis=0)
        self._frames[start:] = frames
        self._recorded += len(frames)
        self._raise_failure()

    def _end_perspective(self) -> None:
        """Cut positions to the frames recorded, so that a scan that was stopped is still a valid file."""
        if self._entry is None:
            return
        if self._recorded == 0:
            del self._file[self._entry.name]
        elif self._recorded < self._positions:
            log.warning("%s: %d of %d frames recorded", self._entry.name, self._recorded, self._positions)
            for name in (layout.TRANSLATION, layout.POSITIONS_PX):
                self._entry[name].resize(self._recorded, axis=0)
        self._entry = self._frames = None

    def _complete(self) -> None:
        self._end_perspective()
        self._file.attrs[layout.RECORDING_VERSION_ATTRIBUTE] = layout.RECORDING_VERSION
        self._close()
        self._raise_failure()
        try:
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


def _write_positions(entry: h5py.Group, perspective: Perspective) -> None:
    positions_px = perspective.positions_px
    translation = np.zeros((len(positions_px), 3))
    translation[:, 1::-1] = positions_px * perspective.geometry.object_pixel_size_m
    # Resizable, because a perspective may end early.
    entry.create_dataset(layout.TRANSLATION, data=translation, maxshape=(None, 3))
    entry.create_dataset(layout.POSITIONS_PX, data=positions_px, maxshape=(None, 2))


def _write_geometry(entry: h5py.Group, perspective: Perspective) -> None:
    geometry = perspective.geometry
    entry[layout.DISTANCE] = geometry.detector_distance_m
    entry[layout.PIXEL_SIZE_Y], entry[layout.PIXEL_SIZE_X] = geometry.detector_pixel_size_m
    entry[layout.ENERGY] = geometry.energy_eV * ELEMENTARY_CHARGE_C
    entry[layout.ENERGY_EV] = geometry.energy_eV
    entry[layout.ANGLE_DEG] = perspective.angle_deg


def _write_images(entry: h5py.Group, perspective: Perspective) -> None:
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
