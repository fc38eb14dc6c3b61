"""HDF5 files of any layout, read with a dataset map: one perspective."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.readers.dataset_map import (
    DatasetMap,
    Energy,
    FrameAxis,
    FramesMap,
    FrameValues,
    GeometryMap,
    Length,
    LengthUnit,
    Number,
    PositionsMap,
    ZeroFrequency,
)
from ptychoflow.acquisition.readers.hdf5 import location, read_array, read_number, require_dataset
from ptychoflow.acquisition.readers.illumination import read_mask, read_probe
from ptychoflow.acquisition.readers.stored import StoredPerspective, check_geometry
from ptychoflow.acquisition.scan import ELEMENTARY_CHARGE_C, PLANCK_J_S, SPEED_OF_LIGHT_M_S, Geometry
from ptychoflow.streaming.errors import UserError


class MappedReader:
    """Reads the one perspective that a dataset map describes."""

    format_name = "HDF5 with a dataset map"

    def __init__(self, file: h5py.File, dataset_map: DatasetMap) -> None:
        self.name = Path(file.filename).stem
        self._file = file
        self._map = dataset_map

    def __len__(self) -> int:
        """Return 1."""
        return 1

    def read(self, index: int) -> StoredPerspective:
        """Return the perspective. Raises `UserError` for what is missing or has the wrong shape or type."""
        frames = _require(self._file, self._map.frames.path, what="frames")
        if frames.ndim != 3:
            raise UserError(f"{location(frames)}: frames must have three axes, not shape {frames.shape}")
        lengths = dict(zip(self._map.frames.axes, frames.shape, strict=True))
        frame_shape_px = (lengths[FrameAxis.Y], lengths[FrameAxis.X])
        geometry = _read_geometry(self._file, self._map.geometry, frame_shape_px)
        check_geometry(geometry, where=location(frames))
        probe, mask, angle = self._map.probe, self._map.mask, self._map.angle_deg
        return StoredPerspective(
            where=location(frames),
            index=index,
            angle_deg=_number(self._file, angle, what="rotation angle") if angle else 0.0,
            geometry=geometry,
            positions_px=_read_positions(self._file, self._map.positions, geometry),
            frame_count=lengths[FrameAxis.FRAME],
            dtype=frames.dtype,
            read=_frame_reader(frames, self._map.frames),
            probe=read_probe(_require(self._file, probe.path, what="probe")) if probe else None,
            mask=read_mask(_require(self._file, mask.path, what="mask"), good=mask.good) if mask else None,
        )


def _require(file: h5py.File, path: str, *, what: str) -> h5py.Dataset:
    return require_dataset(file, [path], what=f"{what} where the dataset map says")


def _number(file: h5py.File, number: Number, *, what: str) -> float:
    if number.value is not None:
        return number.value
    return read_number(_require(file, str(number.path), what=what), what=what)


def _metres(file: h5py.File, length: Length, *, what: str) -> float:
    return _number(file, length, what=what) * length.unit.metres


def _read_geometry(file: h5py.File, geometry: GeometryMap, frame_shape_px: tuple[int, int]) -> Geometry:
    pixel_y = geometry.detector_pixel_size_y or geometry.detector_pixel_size
    return Geometry(
        energy_eV=_read_energy_eV(file, geometry.energy, geometry.wavelength),
        detector_distance_m=_metres(file, geometry.detector_distance, what="detector distance"),
        detector_pixel_size_m=(
            _metres(file, pixel_y, what="detector pixel size along y"),
            _metres(file, geometry.detector_pixel_size, what="detector pixel size along x"),
        ),
        frame_shape_px=frame_shape_px,
    )


def _read_energy_eV(file: h5py.File, energy: Energy | None, wavelength: Length | None) -> float:  # noqa: N802
    if energy is not None:
        return _number(file, energy, what="photon energy") * energy.unit.electronvolts
    if wavelength is None:
        raise ValueError("a geometry has an energy or a wavelength")
    wavelength_m = _metres(file, wavelength, what="wavelength")
    if not wavelength_m > 0:
        raise UserError(f"{file.filename}: the wavelength is {wavelength_m:g} m; it must be positive")
    return PLANCK_J_S * SPEED_OF_LIGHT_M_S / (wavelength_m * ELEMENTARY_CHARGE_C)


def _read_positions(file: h5py.File, positions: PositionsMap, geometry: Geometry) -> npt.NDArray[np.float64]:
    values = _read_position_columns(file, positions)
    if isinstance(positions.unit, LengthUnit):
        return values * positions.unit.metres / geometry.object_pixel_size_m
    return values


def _read_position_columns(file: h5py.File, positions: PositionsMap) -> npt.NDArray[np.float64]:
    """Return positions (frames, 2) as (y, x) in the file's unit."""
    if positions.path is None:
        datasets = [_require(file, str(path), what="positions") for path in (positions.path_y, positions.path_x)]
        y, x = (read_array(dataset).astype(np.float64).reshape(-1) for dataset in datasets)
        if len(y) != len(x):
            raise UserError(f"{location(datasets[0])}: there are {len(y)} y positions but {len(x)} x positions")
        return np.stack([y, x], axis=1)
    dataset = _require(file, positions.path, what="positions")
    columns = read_array(dataset).astype(np.float64)
    if columns.ndim == 2 and columns.shape[1] not in {2, 3}:
        columns = columns.T
    if columns.ndim != 2 or columns.shape[1] not in {2, 3}:
        raise UserError(f"{location(dataset)}: positions must have two or three columns, not shape {dataset.shape}")
    return columns[:, :2] if positions.columns == "yx" else columns[:, 1::-1]


def _frame_reader(frames: h5py.Dataset, layout: FramesMap) -> Callable[[int, int], npt.NDArray[np.generic]]:
    """Return a function that reads frames start to stop as counts (frame, y, x), zero frequency in the centre."""
    frame_axis = layout.axes.index(FrameAxis.FRAME)
    order = [layout.axes.index(axis) for axis in (FrameAxis.FRAME, FrameAxis.Y, FrameAxis.X)]

    def read(start: int, stop: int) -> npt.NDArray[np.generic]:
        selection = [slice(None)] * 3
        selection[frame_axis] = slice(start, stop)
        part = frames[tuple(selection)].transpose(order)
        if layout.values is FrameValues.AMPLITUDES:
            part = part.astype(np.float32) ** 2
        if layout.zero_frequency is ZeroFrequency.CORNER:
            part = np.fft.fftshift(part, axes=(1, 2))
        return np.ascontiguousarray(part)

    return read
