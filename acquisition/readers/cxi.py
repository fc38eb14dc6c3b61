"""CXI files: one perspective per entry.

Conventions of this reader, where the format leaves room: `translation` (x, y, z) in metres is where the beam hits the
object, x growing with columns and y with rows; pixel status as in `masks.py`; the probe is in the object plane. Files
that differ are corrected by `PreprocessSettings`. CXI's axes of the laboratory are y up and x to the left (seen along
the beam), so a detector whose `basis_vectors` are (0, -y, 0) and (-x, 0, 0) is mounted as usual.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import ClassVar

import h5py
import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.readers import layout
from ptychoflow.acquisition.readers.contents import FileContents, Positions
from ptychoflow.acquisition.readers.frame_stack import FrameStack, stack_of
from ptychoflow.acquisition.readers.geometry import FoundGeometry
from ptychoflow.acquisition.readers.hdf5 import find_dataset, find_group, location, names_in, read_array, read_numbers
from ptychoflow.acquisition.readers.masks import read_cxi_mask
from ptychoflow.acquisition.readers.probes import read_probe
from ptychoflow.acquisition.readers.quantities import read_quantity, unit_of
from ptychoflow.acquisition.readers.reader import FormatReader, ScanFiles
from ptychoflow.acquisition.readers.turning import Turn
from ptychoflow.acquisition.readers.units import EnergyUnit, LengthUnit, Quantity, scale
from ptychoflow.streaming.errors import UserError

LARGEST_ROTATION_DEG = 1.0
"""Of the detector about the beam: at the edge of a probe of 50 pixels, a smaller one is less than half a pixel."""


class CxiReader(FormatReader):
    """Reads the entries of a CXI file."""

    format_name: ClassVar[str] = "CXI"

    def __init__(self, files: ScanFiles) -> None:
        super().__init__(files)
        groups = _entries(_file(files))
        self._entries = [group for group in groups if _frames_in(group) is not None]
        full = [group for group in self._entries if (frames := _frames_in(group)) is not None and frames.size]
        self._entries = full or self._entries
        if empty := [str(group.name).strip("/") for group in groups if group not in self._entries]:
            self.notes.append(f"{', '.join(empty)}: no frames in it; left out")

    @staticmethod
    def recognises(files: ScanFiles) -> bool:
        """Whether the file has an entry with frames at the places that CXI gives."""
        return files.hdf5 is not None and any(_frames_in(group) is not None for group in _entries(files.hdf5))

    def __len__(self) -> int:
        """Return the number of entries with frames."""
        return len(self._entries)

    def read(self, index: int) -> FileContents:
        """Return entry `index`, from 0. Raises `UserError` for what has the wrong shape or type."""
        return read_entry(self._entries[index])


def read_entry(entry: h5py.Group) -> FileContents:
    """Return what an entry holds. Raises `UserError` for what has the wrong shape or type."""
    dataset = _frames_in(entry)
    if dataset is None:
        raise ValueError("an entry of a CXI reader has frames")
    contents = FileContents(
        where=location(entry),
        frames=stack_of(dataset),
        geometry=FoundGeometry(
            energy_eV=_energy_eV(entry),
            detector_distance_m=_length_m(entry, layout.DISTANCE, what="detector distance"),
            detector_pixel_size_m=(
                _length_m(entry, layout.PIXEL_SIZE_Y, what="detector pixel size along y"),
                _length_m(entry, layout.PIXEL_SIZE_X, what="detector pixel size along x"),
            ),
        ),
        positions=_positions(entry),
    )
    probe = find_dataset(entry, layout.PROBE_ALTERNATIVES)
    if probe is not None:
        values, notes = read_probe(probe)
        contents = replace(contents, probe=values, notes=contents.notes + notes)
    mask = find_dataset(entry, layout.MASK_ALTERNATIVES)
    if mask is not None:
        bad, notes = read_cxi_mask(mask)
        contents = replace(contents, mask=bad, notes=contents.notes + notes)
    vectors = find_dataset(entry, layout.BASIS_VECTORS_ALTERNATIVES)
    return contents if vectors is None else _as_mounted(contents, vectors)


def _file(files: ScanFiles) -> h5py.File:
    if files.hdf5 is None:
        raise ValueError("a recognised CXI file is HDF5")
    return files.hdf5


def _entries(file: h5py.File) -> list[h5py.Group]:
    names = [name for name in names_in(file) if re.fullmatch(rf"{layout.ENTRY_PREFIX}\d+", name)]
    names.sort(key=lambda name: int(name.removeprefix(layout.ENTRY_PREFIX)))
    return [group for name in names if (group := find_group(file, name)) is not None]


def _frames_in(entry: h5py.Group) -> h5py.Dataset | None:
    return find_dataset(entry, layout.FRAMES_ALTERNATIVES)


def _length_m(entry: h5py.Group, name: str, *, what: str) -> float | None:
    dataset = find_dataset(entry, [name])
    return None if dataset is None else read_quantity(dataset, Quantity.LENGTH, default=LengthUnit.METRE, what=what)


def _energy_eV(entry: h5py.Group) -> float | None:  # noqa: N802
    dataset = find_dataset(entry, layout.ENERGY_ALTERNATIVES)
    if dataset is None:
        return None
    return read_quantity(dataset, Quantity.ENERGY, default=EnergyUnit.JOULE, what="photon energy")


def _positions(entry: h5py.Group) -> Positions | None:
    dataset = find_dataset(entry, layout.TRANSLATION_ALTERNATIVES)
    return None if dataset is None else positions_of_translation(dataset)


def positions_of_translation(dataset: h5py.Dataset) -> Positions:
    """Return positions from a translation (frame, 2 or 3) as x, y, z. Raises `UserError` for another shape or type."""
    if dataset.ndim not in {2, 3} or dataset.shape[-1] not in {2, 3} or dataset.dtype.kind not in "iuf":
        raise UserError(
            f"{location(dataset)}: positions must be numbers of shape (frames, 3) as x, y, z, "
            f"not {dataset.dtype} of shape {dataset.shape}"
        )
    values = read_numbers(dataset, what="positions").reshape(-1, dataset.shape[-1])
    unit = unit_of(dataset, Quantity.LENGTH, what="positions") or LengthUnit.METRE
    return Positions(values[:, 1::-1] * scale(unit))


def _as_mounted(contents: FileContents, dataset: h5py.Dataset) -> FileContents:
    """Turn the frames of a detector whose rows and columns run elsewhere than usual."""
    slow, fast = _basis(dataset)
    transpose = abs(slow[0]) > abs(slow[1])
    rows, columns = (fast, slow) if transpose else (slow, fast)
    turn = Turn(transpose, flip_y=bool(rows[1] > 0), flip_x=bool(columns[0] > 0))
    sizes = contents.geometry.detector_pixel_size_m
    lengths = (float(np.linalg.norm(slow)), float(np.linalg.norm(fast)))
    stored = (sizes[0] or lengths[0], sizes[1] or lengths[1])
    notes = [*contents.notes, *_rotation_note(rows)]
    contents = replace(contents, geometry=replace(contents.geometry, detector_pixel_size_m=stored), notes=notes)
    if turn.is_identity:
        return contents
    words = [name for name in ("transpose", "flip_y", "flip_x") if getattr(turn, name)]
    height, width = contents.frames.shape_px
    return replace(
        contents,
        frames=turned(contents.frames, turn, shape_px=(width, height) if turn.transpose else (height, width)),
        mask=None if contents.mask is None else np.asarray(turn.apply(contents.mask), bool),
        geometry=replace(contents.geometry, detector_pixel_size_m=stored[::-1] if turn.transpose else stored),
        notes=[*contents.notes, f"Frames are turned as the detector's basis vectors say: {', '.join(words)}"],
    )


def _rotation_note(rows: npt.NDArray[np.float64]) -> list[str]:
    """Return a note if `rows`, the direction (x, y, z) in which rows follow one another, is not along y."""
    angle_deg = float(np.degrees(np.arctan2(abs(rows[0]), abs(rows[1]))))
    if angle_deg <= LARGEST_ROTATION_DEG:
        return []
    return [
        f"The detector is rotated by {angle_deg:.3g}° about the beam, as its basis vectors say, which turned frames do "
        "not make up for: rotate the positions by it, and give them with source.positions"
    ]


def turned(stack: FrameStack, turn: Turn, *, shape_px: tuple[int, int]) -> FrameStack:
    """Return frames that are turned when they are read."""
    return stack.changed(turn.apply, shape_px=shape_px)


def _basis(dataset: h5py.Dataset) -> npt.NDArray[np.float64]:
    """Return the vectors (slow, fast) as (x, y, z) along which rows and columns of a frame follow one another."""
    vectors = read_numbers(dataset, what="basis vectors")
    if vectors.ndim == 3:
        if np.ptp(vectors, axis=0).any():
            raise UserError(f"{location(dataset)}: the detector moves during the scan, which cannot be processed")
        vectors = vectors[0]
    if vectors.shape == (3, 2):
        vectors = vectors.T
    if vectors.shape != (2, 3) or not np.isfinite(vectors).all() or not np.linalg.norm(vectors, axis=1).all():
        raise UserError(f"{location(dataset)}: basis vectors must be two vectors (x, y, z), not {read_array(dataset)}")
    return vectors
