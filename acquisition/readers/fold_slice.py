"""Pairs of files of fold_slice and PtychoShelves: `X_dp.hdf5` with frames and `X_para.hdf5` with positions.

Lengths are in metres. The distance is not in them: it follows from the object pixel `dx`, once the detector's pixel is
known.
"""

from __future__ import annotations

from typing import ClassVar

import h5py
import numpy as np

from ptychoflow.acquisition.readers.contents import FileContents, Positions
from ptychoflow.acquisition.readers.elsewhere import companion_of
from ptychoflow.acquisition.readers.frame_stack import stack_of
from ptychoflow.acquisition.readers.geometry import FoundGeometry, energy_from_wavelength
from ptychoflow.acquisition.readers.hdf5 import find_dataset, read_numbers, require_dataset
from ptychoflow.acquisition.readers.quantities import read_quantity
from ptychoflow.acquisition.readers.reader import FormatReader, ScanFiles
from ptychoflow.acquisition.readers.units import AngleUnit, LengthUnit, Quantity
from ptychoflow.streaming.errors import UserError

FRAMES_ENDING, POSITIONS_ENDING = "_dp", "_para"


class FoldSliceReader(FormatReader):
    """Reads a pair of files, of which either is named."""

    format_name: ClassVar[str] = "fold_slice / PtychoShelves pair"

    def __init__(self, files: ScanFiles) -> None:
        super().__init__(files)
        self.name = files.name.removesuffix(FRAMES_ENDING).removesuffix(POSITIONS_ENDING)

    @staticmethod
    def recognises(files: ScanFiles) -> bool:
        """Whether the file is one of the two."""
        return files.hdf5 is not None and (_has_frames(files.hdf5) or _has_positions(files.hdf5))

    def read(self, index: int) -> FileContents:
        """Return frames and positions. Raises `UserError` if the other file is missing or does not fit."""
        named = self._files.hdf5
        if named is None:
            raise ValueError("a pair is of HDF5 files")
        ending = self._files.path.suffix
        if _has_positions(named):
            frames, positions = (
                companion_of(self._files, f"{self.name}{FRAMES_ENDING}{ending}", _has_frames, "frames"),
                named,
            )
        else:
            frames, positions = (
                named,
                companion_of(self._files, f"{self.name}{POSITIONS_ENDING}{ending}", _has_positions, "positions"),
            )
        angle = find_dataset(positions, ["angle"])
        return FileContents(
            where=str(self._files.path),
            frames=stack_of(require_dataset(frames, ["dp"], what="frames")),
            geometry=_geometry(positions),
            positions=_positions(positions),
            angle_deg=None
            if angle is None
            else read_quantity(angle, Quantity.ANGLE, default=AngleUnit.DEGREE, what="rotation angle"),
        )


def _has_frames(file: h5py.File) -> bool:
    return isinstance(file.get("dp"), h5py.Dataset)


def _has_positions(file: h5py.File) -> bool:
    return "ppX" in file and "ppY" in file


def _geometry(file: h5py.File) -> FoundGeometry:
    wavelength, pixel = find_dataset(file, ["lambda"]), find_dataset(file, ["dx"])
    energy_eV = object_pixel_m = None  # noqa: N806
    if wavelength is not None:
        value = read_quantity(wavelength, Quantity.LENGTH, default=LengthUnit.METRE, what="wavelength")
        energy_eV = energy_from_wavelength(value, where=str(file.filename))  # noqa: N806
    if pixel is not None:
        object_pixel_m = read_quantity(pixel, Quantity.LENGTH, default=LengthUnit.METRE, what="object pixel size")
    return FoundGeometry(
        energy_eV=energy_eV, object_pixel_size_m=None if object_pixel_m is None else (object_pixel_m, object_pixel_m)
    )


def _positions(file: h5py.File) -> Positions:
    y, x = (
        read_numbers(require_dataset(file, [name], what="positions"), what="positions").reshape(-1)
        for name in ("ppY", "ppX")
    )
    if len(y) != len(x):
        raise UserError(f"{file.filename}: there are {len(y)} y positions (ppY) but {len(x)} x positions (ppX)")
    return Positions(np.stack([y, x], axis=1))
