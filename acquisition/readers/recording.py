"""Recordings of this project: CXI with one entry per perspective, and with what CXI has no place for."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np

from ptychoflow.acquisition.readers import layout
from ptychoflow.acquisition.readers.cxi import CxiReader
from ptychoflow.acquisition.readers.hdf5 import find_dataset, location, read_array, read_number, require_dataset
from ptychoflow.acquisition.readers.stored import StoredPerspective
from ptychoflow.acquisition.scan import ObjectImage
from ptychoflow.streaming.errors import UserError


class RecordingReader(CxiReader):
    """Reads what `ptychoflow.acquisition.recorder` wrote, bit by bit."""

    format_name = "recording"

    def __init__(self, file: h5py.File) -> None:
        super().__init__(file)
        self.name = str(file.attrs[layout.NAME_ATTRIBUTE]) or self.name
        version = int(file.attrs[layout.RECORDING_VERSION_ATTRIBUTE])
        if version != layout.RECORDING_VERSION:
            raise UserError(
                f"{file.filename}: the recording has version {version}, this program reads {layout.RECORDING_VERSION}; "
                "use the program that wrote it"
            )

    @staticmethod
    def recognises(file: h5py.File) -> bool:
        """Whether the file says that it is a recording."""
        return layout.RECORDING_VERSION_ATTRIBUTE in file.attrs

    def read(self, index: int) -> StoredPerspective:
        """Return perspective `index`; exact positions and energy instead of those that went through SI units."""
        stored = super().read(index)
        entry = self._entries[index]
        positions_px = require_dataset(entry, [layout.POSITIONS_PX], what="positions in pixels")
        return replace(
            stored,
            angle_deg=read_number(
                require_dataset(entry, [layout.ANGLE_DEG], what="rotation angle"), what="rotation angle"
            ),
            geometry=replace(
                stored.geometry,
                energy_eV=read_number(
                    require_dataset(entry, [layout.ENERGY_EV], what="photon energy"), what="photon energy"
                ),
            ),
            positions_px=read_array(positions_px).astype(np.float64),
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
