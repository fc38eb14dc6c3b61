"""Recordings of this project: CXI with one entry per perspective, and with what CXI has no place for."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import h5py
import numpy as np

from ptychoflow.acquisition.readers import layout
from ptychoflow.acquisition.readers.contents import FileContents, Positions
from ptychoflow.acquisition.readers.cxi import CxiReader
from ptychoflow.acquisition.readers.hdf5 import find_dataset, location, read_array, read_numbers, require_dataset
from ptychoflow.acquisition.readers.quantities import read_quantity
from ptychoflow.acquisition.readers.reader import ScanFiles
from ptychoflow.acquisition.readers.units import AngleUnit, EnergyUnit, Quantity
from ptychoflow.acquisition.scan import ObjectImage
from ptychoflow.streaming.errors import UserError


class RecordingReader(CxiReader):
    """Reads what `ptychoflow.acquisition.recorder` wrote, bit by bit."""

    format_name: ClassVar[str] = "recording"

    def __init__(self, files: ScanFiles) -> None:
        super().__init__(files)
        file = files.hdf5
        if file is None:
            raise ValueError("a recording is HDF5")
        self.name = str(file.attrs.get(layout.NAME_ATTRIBUTE, "")) or self.name
        version = file.attrs[layout.RECORDING_VERSION_ATTRIBUTE]
        if version != layout.RECORDING_VERSION:
            raise UserError(
                f"{file.filename}: the recording has version {version}, this program reads {layout.RECORDING_VERSION}; "
                "use the program that wrote it"
            )

    @staticmethod
    def recognises(files: ScanFiles) -> bool:
        """Whether the file says that it is a recording."""
        return files.hdf5 is not None and layout.RECORDING_VERSION_ATTRIBUTE in files.hdf5.attrs

    def read(self, index: int) -> FileContents:
        """Return perspective `index`; exact positions and energy instead of those that went through SI units."""
        contents = super().read(index)
        entry = self._entries[index]
        angle, energy = (
            require_dataset(entry, [name], what=what)
            for name, what in ((layout.ANGLE_DEG, "rotation angle"), (layout.ENERGY_EV, "photon energy"))
        )
        positions = read_numbers(
            require_dataset(entry, [layout.POSITIONS_PX], what="positions in pixels"), what="positions"
        )
        if positions.ndim != 2 or positions.shape[1] != 2:
            raise UserError(f"{location(entry)}: positions must have axes (frame, 2), not shape {positions.shape}")
        return replace(
            contents,
            angle_deg=read_quantity(angle, Quantity.ANGLE, default=AngleUnit.DEGREE, what="rotation angle"),
            geometry=replace(
                contents.geometry,
                energy_eV=read_quantity(energy, Quantity.ENERGY, default=EnergyUnit.ELECTRONVOLT, what="photon energy"),
            ),
            positions=Positions(positions, in_pixels=True),
            ground_truth=_read_object(entry),
        )


def _read_object(entry: h5py.Group) -> ObjectImage | None:
    values = find_dataset(entry, [layout.OBJECT])
    if values is None:
        return None
    origin = read_array(require_dataset(entry, [layout.OBJECT_ORIGIN_PX], what="origin of the object"))
    if values.ndim != 2 or values.dtype.kind != "c" or origin.shape != (2,):
        raise UserError(f"{location(values)}: the object must be complex with axes (y, x) and an origin (y, x)")
    return ObjectImage(read_array(values).astype(np.complex64), (float(origin[0]), float(origin[1])))
