"""`.ptyd` files of ptypy: frames in chunks, with positions and weights; prepared for reconstruction."""

from __future__ import annotations

from typing import ClassVar

import h5py
import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.readers.beam_centre import centre_note
from ptychoflow.acquisition.readers.contents import FileContents, Positions
from ptychoflow.acquisition.readers.frame_stack import chained, stack_of
from ptychoflow.acquisition.readers.geometry import FoundGeometry
from ptychoflow.acquisition.readers.hdf5 import (
    find_dataset,
    find_group,
    location,
    names_in,
    read_numbers,
    require_dataset,
)
from ptychoflow.acquisition.readers.masks import where_bad
from ptychoflow.acquisition.readers.natural import natural_order
from ptychoflow.acquisition.readers.quantities import one_number, read_quantity
from ptychoflow.acquisition.readers.reader import FormatReader, ScanFiles
from ptychoflow.acquisition.readers.units import EnergyUnit, LengthUnit, Quantity
from ptychoflow.streaming.errors import UserError


class PtydReader(FormatReader):
    """Reads the frames of all chunks."""

    format_name: ClassVar[str] = "ptyd (ptypy)"

    @staticmethod
    def recognises(files: ScanFiles) -> bool:
        """Whether the file has ptypy's groups of chunks and metadata."""
        file = files.hdf5
        return file is not None and find_group(file, "chunks") is not None and find_group(file, "meta") is not None

    def read(self, index: int) -> FileContents:
        """Return the frames of all chunks. Raises `UserError` for what is missing or does not fit."""
        file = self._files.hdf5
        chunks = None if file is None else find_group(file, "chunks")
        if file is None or chunks is None:
            raise ValueError("a .ptyd file has chunks")
        parts = [
            part
            for name in sorted(names_in(chunks), key=natural_order)
            if (part := find_group(chunks, name)) is not None
        ]
        parts = [part for part in parts if find_dataset(part, ["data"]) is not None]
        if not parts:
            raise UserError(f"{file.filename}: the chunks hold no frames; was the file written to its end?")
        stacks = [stack_of(require_dataset(part, ["data"], what="frames")) for part in parts]
        positions = [_positions(part, stack.count) for part, stack in zip(parts, stacks, strict=True)]
        notes: list[str] = []
        mask = _mask(parts, notes)
        frames = chained(stacks)
        centre = find_dataset(file, ["meta/center"])
        if centre is not None and centre.size == 2 and centre.dtype.kind in "iuf":
            y, x = read_numbers(centre, what="centre of the frames").reshape(-1).tolist()
            notes += centre_note((y, x), frames.shape_px)
        return FileContents(
            where=str(file.filename),
            frames=frames,
            geometry=_geometry(file),
            positions=Positions(np.concatenate(positions)),
            mask=mask,
            notes=notes,
        )


def _positions(chunk: h5py.Group, frames: int) -> npt.NDArray[np.float64]:
    """Return positions (y, x) of a chunk's frames in metres."""
    dataset = require_dataset(chunk, ["positions"], what="positions")
    values = read_numbers(dataset, what="positions")
    if values.shape != (frames, 2):
        raise UserError(
            f"{location(dataset)}: a chunk of {frames} frames must have positions ({frames}, 2), not {values.shape}"
        )
    return values


def _mask(chunks: list[h5py.Group], notes: list[str]) -> npt.NDArray[np.bool_] | None:
    """Return where any frame has no weight; None where there are no weights."""
    weights = [one for chunk in chunks if (one := find_dataset(chunk, ["weights"])) is not None and one.size]
    if not weights:
        return None
    anywhere, everywhere = zip(*(where_bad(one, lambda values: values == 0) for one in weights), strict=True)
    bad = np.logical_or.reduce(anywhere)
    if changing := int((bad & ~np.logical_and.reduce(everywhere)).sum()):
        notes.append(f"{changing} pixels have no weight in some frames only; they are ignored in all of them")
    return np.asarray(bad)


def _geometry(file: h5py.File) -> FoundGeometry:
    def number(name: str, quantity: Quantity, unit: LengthUnit | EnergyUnit, what: str) -> float | None:
        dataset = find_dataset(file, [f"meta/{name}", f"info/{name}"])
        value = None if dataset is None else read_quantity(dataset, quantity, default=unit, what=what)
        return value or None  # ptypy writes 0 for what it has not been told

    pixel = find_dataset(file, ["meta/psize", "info/psize"])
    return FoundGeometry(
        energy_eV=number("energy", Quantity.ENERGY, EnergyUnit.KILOELECTRONVOLT, "photon energy"),
        detector_distance_m=number("distance", Quantity.LENGTH, LengthUnit.METRE, "detector distance"),
        detector_pixel_size_m=(None, None) if pixel is None else _pair(pixel),
    )


def _pair(dataset: h5py.Dataset) -> tuple[float | None, float | None]:
    """Return a pixel size (y, x) in metres, which may be one number for both."""
    values = read_numbers(dataset, what="detector pixel size").reshape(-1)
    if len(values) == 2:
        return float(values[0]) or None, float(values[1]) or None
    size = one_number(values, what="detector pixel size", where=location(dataset)) or None
    return size, size
