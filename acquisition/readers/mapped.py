"""HDF5 files of any layout, read with a dataset map: one perspective."""

from __future__ import annotations

import fnmatch
import logging
from pathlib import PurePosixPath
from typing import ClassVar

import h5py
import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.readers.contents import FileContents, Positions
from ptychoflow.acquisition.readers.dataset_map import (
    Angle,
    DatasetMap,
    Energy,
    FramesMap,
    FrameValues,
    GeometryMap,
    Length,
    MaskMap,
    PositionsMap,
    ZeroFrequency,
)
from ptychoflow.acquisition.readers.elsewhere import hdf5_of
from ptychoflow.acquisition.readers.frame_stack import FrameStack, chained, stack_of, stack_with_axes
from ptychoflow.acquisition.readers.geometry import FoundGeometry, energy_from_wavelength
from ptychoflow.acquisition.readers.hdf5 import find_dataset, find_item, location, names_in, read_text, require_dataset
from ptychoflow.acquisition.readers.masks import read_mask
from ptychoflow.acquisition.readers.natural import natural_order
from ptychoflow.acquisition.readers.positions import as_seen, read_positions
from ptychoflow.acquisition.readers.probes import read_probe
from ptychoflow.acquisition.readers.quantities import known_unit, one_number, read_quantity, spread_of, unit_of
from ptychoflow.acquisition.readers.reader import FormatReader, ScanFiles
from ptychoflow.acquisition.readers.units import Quantity, Unit, scale
from ptychoflow.streaming.errors import UserError

log = logging.getLogger(__name__)


class MappedReader(FormatReader):
    """Reads the one perspective that a dataset map describes."""

    format_name: ClassVar[str] = "HDF5 with a dataset map"

    def __init__(self, files: ScanFiles, dataset_map: DatasetMap) -> None:
        super().__init__(files)
        self._map = dataset_map

    def read(self, index: int) -> FileContents:
        """Return the perspective. Raises `UserError` for what is missing or has the wrong shape or type."""
        frames = _frames(self._files, self._map.frames)
        probe = self._map.probe
        angle_deg = _angle_deg(self._files, self._map.angle_deg)
        notes: list[str] = []
        values = None
        if probe is not None:
            values, notes = read_probe(_require(self._files, probe.file, probe.path, what="probe"))
        return FileContents(
            where=frames.where,
            frames=frames,
            geometry=_geometry(self._files, self._map.geometry),
            positions=_positions(self._files, self._map.positions, angle_deg),
            angle_deg=angle_deg,
            probe=values,
            mask=_mask(self._files, self._map.mask),
            notes=notes,
        )


def _require(files: ScanFiles, file: str | None, path: str, *, what: str) -> h5py.Dataset:
    return require_dataset(hdf5_of(files, file), [path], what=f"{what} where the dataset map says")


def _mask(files: ScanFiles, mask: MaskMap | None) -> npt.NDArray[np.bool_] | None:
    if mask is None or (mask.optional and find_dataset(hdf5_of(files, mask.file), [mask.path]) is None):
        return None
    return read_mask(_require(files, mask.file, mask.path, what="mask"), good=mask.good)


def _angle_deg(files: ScanFiles, angle: Angle | None) -> float | None:
    return None if angle is None else _number(files, angle, Quantity.ANGLE, what="rotation angle")


def _positions(files: ScanFiles, positions: PositionsMap | None, angle_deg: float | None) -> Positions | None:
    if positions is None:
        return None
    found = read_positions(files, positions)
    return as_seen(found, positions, angle_deg, where=str(files.path), section="source.map_values.positions")


def _number(files: ScanFiles, number: Length | Energy | Angle, quantity: Quantity, *, what: str) -> float | None:
    """Return a number in metres, electronvolts or degrees; None if it is not where the map says."""
    if number.value is not None:
        if number.unit is None:
            raise UserError(f"the dataset map gives the {what} without its unit; add unit = ...")
        return number.value * scale(number.unit)
    file = hdf5_of(files, number.file)
    stated = _stated_unit(file, number.unit_path, quantity, what=what)
    if number.attribute is not None:
        return _from_attribute(file, number, quantity, stated or number.unit, what=what)
    dataset = find_dataset(file, [str(number.path)])
    if dataset is None:
        log.warning("%s: there is no %s at %s, where the dataset map says", file.filename, what, number.path)
        return None
    unit = stated or (number.unit if not isinstance(number, Angle) else None)
    unit = unit or unit_of(dataset, quantity, what=what) or number.unit
    if unit is None:
        raise UserError(f"{location(dataset)}: nothing says which unit the {what} has; give it in the dataset map")
    return read_quantity(dataset, quantity, default=unit, what=what, unit=unit)


def _stated_unit(file: h5py.File, path: str | None, quantity: Quantity, *, what: str) -> Unit | None:
    dataset = None if path is None else find_dataset(file, [path])
    if dataset is None:
        return None
    return known_unit(read_text(dataset), quantity, what=what, where=location(dataset))


def _from_attribute(
    file: h5py.File, number: Length | Energy | Angle, quantity: Quantity, unit: Unit | None, *, what: str
) -> float | None:
    owner = find_item(file, number.path or "/")
    name = str(number.attribute)
    if owner is None or name not in owner.attrs:
        log.warning("%s: there is no %s in attribute %s, where the dataset map says", file.filename, what, name)
        return None
    if unit is None:
        raise UserError(f"{location(owner)}: nothing says which unit the {what} has; give it in the dataset map")
    values = np.asarray(owner.attrs[name])
    if values.dtype.kind not in "iuf":
        raise UserError(f"{location(owner)}: the {what} (attribute {name}) must be a number, not {values.dtype}")
    spread = spread_of(quantity, unit)
    return one_number(values.astype(np.float64), what=what, where=location(owner), spread=spread) * scale(unit)


def _geometry(files: ScanFiles, geometry: GeometryMap) -> FoundGeometry:
    pixel_x = geometry.detector_pixel_size
    pixel_y = geometry.detector_pixel_size_y or pixel_x

    def length_m(length: Length | None, what: str) -> float | None:
        return None if length is None else _number(files, length, Quantity.LENGTH, what=what)

    return FoundGeometry(
        energy_eV=_energy_eV(files, geometry),
        detector_distance_m=length_m(geometry.detector_distance, "detector distance"),
        detector_pixel_size_m=(
            length_m(pixel_y, "detector pixel size along y"),
            length_m(pixel_x, "detector pixel size along x"),
        ),
    )


def _energy_eV(files: ScanFiles, geometry: GeometryMap) -> float | None:  # noqa: N802
    if geometry.energy is not None:
        return _number(files, geometry.energy, Quantity.ENERGY, what="photon energy")
    if geometry.wavelength is None:
        return None
    wavelength_m = _number(files, geometry.wavelength, Quantity.LENGTH, what="wavelength")
    if wavelength_m is None:
        return None
    return energy_from_wavelength(wavelength_m, where=str(files.path))


def _frames(files: ScanFiles, frames: FramesMap) -> FrameStack:
    """Return frames as counts (frame, y, x), zero frequency in the centre."""
    file = hdf5_of(files, frames.file)
    paths = [frames.path] if isinstance(frames.path, str) else list(frames.path)
    if frames.alternatives and find_dataset(file, paths[:1]) is None:
        paths = [path for path in frames.alternatives if find_dataset(file, [path]) is not None][:1] or paths
    datasets = [dataset for path in paths for dataset in _datasets(file, path)]
    stacks = [stack_with_axes(dataset, frames.axes) if frames.axes else stack_of(dataset) for dataset in datasets]
    stack = chained(stacks)
    if frames.values is FrameValues.AMPLITUDES:
        stack = stack.changed(lambda part: part.astype(np.float32) ** 2, dtype=np.float32)
    if frames.zero_frequency is ZeroFrequency.CORNER:
        stack = stack.changed(lambda part: np.fft.fftshift(part, axes=(1, 2)))
    return stack


def _datasets(file: h5py.File, path: str) -> list[h5py.Dataset]:
    """Return the datasets that `path` names, in the order of the numbers in their names."""
    if "*" not in path:
        return [require_dataset(file, [path], what="frames where the dataset map says")]
    parent = find_item(file, str(PurePosixPath(path).parent))
    names = fnmatch.filter(names_in(parent), PurePosixPath(path).name) if isinstance(parent, h5py.Group) else []
    found = [find_dataset(parent, [name]) for name in sorted(names, key=natural_order)]
    datasets = [dataset for dataset in found if dataset is not None]
    if not datasets:
        raise UserError(f"{file.filename}: the file has no frames where the dataset map says; expected {path}")
    return datasets
