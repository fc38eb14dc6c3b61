"""CXI files: one perspective per entry.

Conventions of this reader, where the format leaves room: `translation` (x, y, z) in metres is where the beam hits the
object, x growing with columns and y with rows; `mask` is 0 for good pixels; the probe is in the object plane. Files
that differ are corrected by `PreprocessSettings`.
"""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.readers import layout
from ptychoflow.acquisition.readers.hdf5 import find_dataset, location, read_array, read_number, require_dataset
from ptychoflow.acquisition.readers.illumination import read_mask, read_probe
from ptychoflow.acquisition.readers.stored import StoredPerspective, check_geometry
from ptychoflow.acquisition.scan import ELEMENTARY_CHARGE_C, Geometry
from ptychoflow.streaming.errors import UserError

ENERGY_UNITS_J = {"J": 1.0, "eV": ELEMENTARY_CHARGE_C, "keV": 1e3 * ELEMENTARY_CHARGE_C}


class CxiReader:
    """Reads the entries of a CXI file."""

    format_name = "CXI"

    def __init__(self, file: h5py.File) -> None:
        self.name = Path(file.filename).stem
        self._entries = [file[name] for name in _entry_names(file)]

    @staticmethod
    def recognises(file: h5py.File) -> bool:
        """Whether the file has an entry with frames at the places that CXI gives."""
        return bool(_entry_names(file))

    def __len__(self) -> int:
        """Return the number of entries with frames."""
        return len(self._entries)

    def read(self, index: int) -> StoredPerspective:
        """Return entry `index`, from 0. Raises `UserError` for what is missing or has the wrong shape or type."""
        entry = self._entries[index]
        frames = require_dataset(entry, layout.FRAMES_ALTERNATIVES, what="frames")
        probe = find_dataset(entry, layout.PROBE_ALTERNATIVES)
        mask = find_dataset(entry, [layout.MASK])
        geometry = check_geometry(_read_geometry(entry, frames), where=location(entry))
        return StoredPerspective(
            where=location(entry),
            index=index,
            angle_deg=0.0,
            geometry=geometry,
            positions_px=_read_positions(entry) / geometry.object_pixel_size_m,
            frame_count=len(frames),
            dtype=frames.dtype,
            read=lambda start, stop: frames[start:stop],
            probe=None if probe is None else read_probe(probe),
            mask=None if mask is None else read_mask(mask),
        )


def _entry_names(file: h5py.File) -> list[str]:
    names = [name for name in file if re.fullmatch(rf"{layout.ENTRY_PREFIX}\d+", name)]
    with_frames = [name for name in names if find_dataset(file[name], layout.FRAMES_ALTERNATIVES) is not None]
    return sorted(with_frames, key=lambda name: int(name.removeprefix(layout.ENTRY_PREFIX)))


def _read_geometry(entry: h5py.Group, frames: h5py.Dataset) -> Geometry:
    """Return the geometry of frames as stored."""
    if frames.ndim != 3:
        raise UserError(f"{location(frames)}: frames must have axes (frame, y, x), not shape {frames.shape}")
    distance_m, pixel_y_m, pixel_x_m = (
        read_number(require_dataset(entry, [name], what=what), what=what)
        for name, what in (
            (layout.DISTANCE, "detector distance"),
            (layout.PIXEL_SIZE_Y, "detector pixel size along y"),
            (layout.PIXEL_SIZE_X, "detector pixel size along x"),
        )
    )
    return Geometry(
        energy_eV=_read_energy_eV(entry),
        detector_distance_m=abs(distance_m),
        detector_pixel_size_m=(pixel_y_m, pixel_x_m),
        frame_shape_px=(frames.shape[1], frames.shape[2]),
    )


def _read_energy_eV(entry: h5py.Group) -> float:  # noqa: N802
    dataset = require_dataset(entry, layout.ENERGY_ALTERNATIVES, what="photon energy")
    unit = dataset.attrs.get("units", "J")
    unit = unit.decode() if isinstance(unit, bytes) else str(unit)
    if unit not in ENERGY_UNITS_J:
        raise UserError(f"{location(dataset)}: unknown energy unit {unit!r}; use one of {', '.join(ENERGY_UNITS_J)}")
    return read_number(dataset, what="photon energy") * ENERGY_UNITS_J[unit] / ELEMENTARY_CHARGE_C


def _read_positions(entry: h5py.Group) -> npt.NDArray[np.float64]:
    dataset = require_dataset(entry, layout.TRANSLATION_ALTERNATIVES, what="positions")
    if dataset.ndim != 2 or dataset.shape[1] not in {2, 3} or dataset.dtype.kind not in "iuf":
        raise UserError(
            f"{location(dataset)}: positions must be numbers of shape (frames, 3) as x, y, z, "
            f"not {dataset.dtype} of shape {dataset.shape}"
        )
    return read_array(dataset)[:, 1::-1].astype(np.float64)
