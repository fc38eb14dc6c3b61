"""Master files of Eiger detectors, with their data files: frames, mask and geometry, but no positions.

Layout: DECTRIS, "NeXus/HDF5 master file" of the EIGER filewriter. Each data file is linked to as
`/entry/data/data_000001` and says by `image_nr_low` and `image_nr_high` which images it holds, counted from 1.
"""

from __future__ import annotations

import re
from typing import ClassVar

import h5py
import numpy as np

from ptychoflow.acquisition.readers.beam_centre import centre_note
from ptychoflow.acquisition.readers.contents import FileContents
from ptychoflow.acquisition.readers.frame_stack import FrameStack, chained, stack_of
from ptychoflow.acquisition.readers.geometry import FoundGeometry, energy_from_wavelength
from ptychoflow.acquisition.readers.hdf5 import find_dataset, find_group, location, names_in, read_numbers
from ptychoflow.acquisition.readers.masks import read_mask
from ptychoflow.acquisition.readers.natural import natural_order
from ptychoflow.acquisition.readers.quantities import read_quantity
from ptychoflow.acquisition.readers.reader import FormatReader, ScanFiles
from ptychoflow.acquisition.readers.units import EnergyUnit, LengthUnit, Quantity
from ptychoflow.streaming.errors import UserError

DATA = "entry/data"
DETECTOR = "entry/instrument/detector"
SPECIFIC = f"{DETECTOR}/detectorSpecific"
DATA_NAME = re.compile(r"data_\d{6}")
MASTER = "_master"


class EigerReader(FormatReader):
    """Reads a master file."""

    format_name: ClassVar[str] = "Eiger master file"

    def __init__(self, files: ScanFiles) -> None:
        super().__init__(files)
        self.name = files.name.removesuffix(MASTER)

    @staticmethod
    def recognises(files: ScanFiles) -> bool:
        """Whether data files are linked to as in a master file."""
        return files.hdf5 is not None and bool(_data_names(files.hdf5))

    def read(self, index: int) -> FileContents:
        """Return the frames of all data files, in their order. Raises `UserError` if one is missing or out of place."""
        file = self._files.hdf5
        if file is None:
            raise ValueError("a master file is HDF5")
        notes: list[str] = []
        frames = _frames(file, notes)
        centre = (_number(file, f"{DETECTOR}/beam_center_y"), _number(file, f"{DETECTOR}/beam_center_x"))
        notes += centre_note(centre, frames.shape_px)
        mask = find_dataset(file, [f"{SPECIFIC}/pixel_mask", f"{DETECTOR}/pixel_mask"])
        return FileContents(
            where=str(file.filename),
            frames=frames,
            geometry=FoundGeometry(
                energy_eV=_energy_eV(file),
                detector_distance_m=_length_m(file, ("detector_distance", "distance"), "detector distance"),
                detector_pixel_size_m=(
                    _length_m(file, ("y_pixel_size",), "detector pixel size along y")
                    or _length_m(file, ("x_pixel_size",), "detector pixel size along x"),
                    _length_m(file, ("x_pixel_size",), "detector pixel size along x"),
                ),
            ),
            mask=None if mask is None else read_mask(mask),
            notes=notes,
        )


def _data_names(file: h5py.File) -> list[str]:
    group = find_group(file, DATA)
    return sorted(filter(DATA_NAME.fullmatch, names_in(group) if group else ()), key=natural_order)


def _frames(file: h5py.File, notes: list[str]) -> FrameStack:
    group = find_group(file, DATA)
    stacks: list[FrameStack] = []
    count = 0
    for name in _data_names(file):
        dataset = None if group is None else find_dataset(group, [name])
        if dataset is None:
            raise UserError(f"{file.filename}: /{DATA}/{name} is no dataset of frames; copy the scan again")
        _check_place(dataset, first=count + 1)
        stacks.append(stack_of(dataset))
        count += stacks[-1].count
    images, triggers = _number(file, f"{SPECIFIC}/nimages"), _number(file, f"{SPECIFIC}/ntrigger")
    if images and triggers and images * triggers != count:
        notes.append(f"The detector was set for {images * triggers:.0f} images; there are {count}")
    return chained(stacks)


def _check_place(dataset: h5py.Dataset, *, first: int) -> None:
    """Raise `UserError` if a data file says that it holds other images than those that follow the ones before."""
    low = dataset.attrs.get("image_nr_low")
    if low is None or np.size(low) != 1 or int(np.ravel(low)[0]) == first:
        return
    raise UserError(
        f"{location(dataset)}: this data file begins with image {int(np.ravel(low)[0])}, but image {first} is next; "
        "a data file before it is missing or not complete: copy the scan again"
    )


def _number(file: h5py.File, name: str) -> float | None:
    """Return a number that nothing but a note depends on; None if it is not there."""
    dataset = find_dataset(file, [name])
    if dataset is None or dataset.size != 1 or dataset.dtype.kind not in "iuf":
        return None
    value = float(read_numbers(dataset, what=name).reshape(-1)[0])
    return value if np.isfinite(value) else None


def _length_m(file: h5py.File, names: tuple[str, ...], what: str) -> float | None:
    dataset = find_dataset(file, [f"{DETECTOR}/{name}" for name in names])
    return None if dataset is None else read_quantity(dataset, Quantity.LENGTH, default=LengthUnit.METRE, what=what)


def _energy_eV(file: h5py.File) -> float | None:  # noqa: N802
    dataset = find_dataset(file, [f"{SPECIFIC}/photon_energy", "entry/instrument/beam/incident_energy"])
    if dataset is not None:
        return read_quantity(dataset, Quantity.ENERGY, default=EnergyUnit.ELECTRONVOLT, what="photon energy")
    wavelengths = [f"entry/{beam}/{name}" for beam in ("instrument/beam", "sample/beam") for name in WAVELENGTHS]
    dataset = find_dataset(file, wavelengths)
    if dataset is None:
        return None
    wavelength_m = read_quantity(dataset, Quantity.LENGTH, default=LengthUnit.ANGSTROM, what="wavelength")
    return energy_from_wavelength(wavelength_m, where=str(file.filename))


WAVELENGTHS = ("incident_wavelength", "wavelength")
