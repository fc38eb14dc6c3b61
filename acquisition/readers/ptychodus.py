"""Products of ptychodus with their diffraction file: two HDF5 files, joined by the index of each position.

Of the two, either may be named; the other one is found beside it, under the name that ptychodus gives it or as the only
file that holds it, or is named as `source.companion`.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.readers.contents import FileContents, Positions
from ptychoflow.acquisition.readers.elsewhere import companion_of
from ptychoflow.acquisition.readers.frame_stack import stack_of
from ptychoflow.acquisition.readers.geometry import FoundGeometry
from ptychoflow.acquisition.readers.hdf5 import find_dataset, location, read_numbers, require_dataset
from ptychoflow.acquisition.readers.masks import read_mask
from ptychoflow.acquisition.readers.probes import read_probe
from ptychoflow.acquisition.readers.reader import FormatReader, ScanFiles
from ptychoflow.acquisition.readers.units import energy_of_wavelength_eV
from ptychoflow.streaming.errors import UserError

ENERGIES = ("photon_energy_eV", "probe_energy_eV")
DISTANCE = "detector_object_distance_m"
ANGLE = "tomography_angle_deg"
POSITION_INDEXES = "probe_position_indexes"
PATTERNS, INDEXES = "patterns", "indexes"
DIFFRACTION_NAME, PRODUCT_NAME = "diffraction.h5", "product.h5"
OBJECT_PIXELS = ("pixel_height_m", "pixel_width_m")
DETECTOR_PIXELS = ("detector_pixel_height_m", "detector_pixel_width_m")


class PtychodusReader(FormatReader):
    """Reads a product and the frames that belong to it."""

    format_name: ClassVar[str] = "ptychodus product with its diffraction file"

    @staticmethod
    def recognises(files: ScanFiles) -> bool:
        """Whether the file is one of the two."""
        return files.hdf5 is not None and (_is_product(files.hdf5) or _is_diffraction(files.hdf5))

    def read(self, index: int) -> FileContents:
        """Return the product with its frames. Raises `UserError` if the other file is missing or does not fit."""
        named = self._files.hdf5
        if named is None:
            raise ValueError("a product is HDF5")
        if _is_product(named):
            product, diffraction = named, companion_of(self._files, DIFFRACTION_NAME, _is_diffraction, "frames")
        else:
            product, diffraction = companion_of(self._files, PRODUCT_NAME, _is_product, "positions"), named
        self.notes.append(
            f"Positions are from {Path(product.filename).name}, frames from {Path(diffraction.filename).name}"
        )
        patterns = require_dataset(diffraction, [PATTERNS], what="frames")
        frames = stack_of(patterns)
        bad = find_dataset(diffraction, ["bad_pixels"])
        probe = find_dataset(product, ["probe"])
        values, notes = (None, []) if probe is None else read_probe(probe)
        return FileContents(
            where=location(product),
            frames=frames,
            geometry=_geometry(product, patterns, frames.shape_px),
            positions=_positions(product, _numbers(diffraction, frames.count)),
            angle_deg=_attribute(product, (ANGLE,)),
            probe=values,
            mask=None if bad is None else read_mask(bad),
            notes=notes,
        )


def _is_product(file: h5py.File) -> bool:
    return DISTANCE in file.attrs and POSITION_INDEXES in file


def _is_diffraction(file: h5py.File) -> bool:
    return PATTERNS in file and INDEXES in file


def _attribute(item: h5py.File | h5py.Dataset, names: tuple[str, ...]) -> float | None:
    """Return the first of several attributes that is one number."""
    for name in names:
        value = np.asarray(item.attrs[name]) if name in item.attrs else np.empty(0)
        if value.size == 1 and value.dtype.kind in "iuf":
            return float(value.reshape(-1)[0])
    return None


def _geometry(product: h5py.File, patterns: h5py.Dataset, shape_px: tuple[int, int]) -> FoundGeometry:
    energy_eV, distance_m = _attribute(product, ENERGIES), _attribute(product, (DISTANCE,))  # noqa: N806
    pixels = [_attribute(patterns, (name,)) for name in DETECTOR_PIXELS]
    owner = find_dataset(product, ["probe"]) or find_dataset(product, ["object"])
    if None in pixels and owner is not None and energy_eV and distance_m:
        # Older diffraction files do not have it; it follows from the pixel of the object.
        reach = energy_of_wavelength_eV(1.0) / energy_eV * distance_m
        for axis, name in enumerate(OBJECT_PIXELS):
            object_pixel_m = _attribute(owner, (name,))
            pixels[axis] = reach / (shape_px[axis] * object_pixel_m) if object_pixel_m else None
    return FoundGeometry(energy_eV, distance_m, (pixels[0], pixels[1]))


def _numbers(diffraction: h5py.File, frames: int) -> npt.NDArray[np.int64]:
    """Return the index of each frame."""
    dataset = require_dataset(diffraction, [INDEXES], what="index of the frames")
    values = read_numbers(dataset, what="index of the frames").reshape(-1)
    if len(values) != frames or not np.isfinite(values).all():
        raise UserError(f"{location(dataset)}: there are {len(values)} indices for {frames} frames")
    return values.astype(np.int64)


def _positions(product: h5py.File, frame_indices: npt.NDArray[np.int64]) -> Positions:
    """Return the positions, each with the number of the frame that has its index; -1 for none."""
    index, y, x = (
        read_numbers(require_dataset(product, [name], what="positions"), what="positions").reshape(-1)
        for name in (POSITION_INDEXES, "probe_position_y_m", "probe_position_x_m")
    )
    if not len(index) == len(y) == len(x) or not np.isfinite(index).all():
        raise UserError(f"{product.filename}: there are {len(index)} indices, {len(y)} y and {len(x)} x positions")
    order = np.argsort(frame_indices, kind="stable")
    place = np.searchsorted(frame_indices[order], index)
    place = np.minimum(place, max(len(order) - 1, 0))
    frames = order[place] if len(order) else np.full(len(index), -1)
    matched = frame_indices[frames] == index if len(order) else np.zeros(len(index), bool)
    return Positions(np.stack([y, x], axis=1), frames=np.where(matched, frames, -1).astype(np.int64))
