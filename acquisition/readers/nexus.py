"""NeXus files that say that they are NXptycho or NXcxi_ptycho: one perspective per entry.

The definitions: nexusformat.org, contributed definitions. They keep the photon energy with the beam and the storage
ring's with the source, positions in positioners or as a translation, and frames with axes (x, y), which writers of CXI
do not follow: where nothing in the file says it, the order of axes is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar

import h5py
import numpy as np

from ptychoflow.acquisition.readers import layout
from ptychoflow.acquisition.readers.contents import FileContents, Positions
from ptychoflow.acquisition.readers.cxi import positions_of_translation
from ptychoflow.acquisition.readers.frame_stack import stack_of
from ptychoflow.acquisition.readers.geometry import FoundGeometry
from ptychoflow.acquisition.readers.hdf5 import (
    find_dataset,
    find_group,
    find_item,
    location,
    names_in,
    read_numbers,
    read_text,
)
from ptychoflow.acquisition.readers.masks import read_cxi_mask
from ptychoflow.acquisition.readers.probes import read_probe
from ptychoflow.acquisition.readers.quantities import one_number, read_quantity, unit_of
from ptychoflow.acquisition.readers.reader import FormatReader, ScanFiles
from ptychoflow.acquisition.readers.units import EnergyUnit, LengthUnit, Quantity, Unit, as_text, scale
from ptychoflow.acquisition.source_settings import FrameAxes
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.set_option import set_option

DEFINITIONS = {"NXptycho", "NXcxi_ptycho"}
SMALLEST_IN_EV = 1e3
"""A number of this size without a unit can only be electronvolts: as many kiloelectronvolts are no X-rays."""
LARGEST_IN_JOULE = 1e-12


class NexusReader(FormatReader):
    """Reads the entries of a file."""

    format_name: ClassVar[str] = "NXptycho"

    def __init__(self, files: ScanFiles) -> None:
        super().__init__(files)
        entries = list(_entries(files))
        self._entries = [entry for entry in entries if _frames(entry) is not None] or entries
        if empty := [str(entry.name).strip("/") for entry in entries if entry not in self._entries]:
            self.notes.append(f"{', '.join(empty)}: no frames in it; left out")

    @staticmethod
    def recognises(files: ScanFiles) -> bool:
        """Whether an entry names one of the definitions."""
        return any(True for _ in _entries(files))

    def __len__(self) -> int:
        """Return the number of entries with frames."""
        return len(self._entries)

    def read(self, index: int) -> FileContents:
        """Return entry `index`, from 0. Raises `UserError` for what is missing or has the wrong shape or type."""
        entry = self._entries[index]
        dataset = _frames(entry)
        if dataset is None:
            raise UserError(f"{location(entry)}: the entry has no frames (detector_1/data)")
        notes: list[str] = []
        stack = stack_of(dataset)
        mask = _first(_groups(entry, "detector"), ("mask", "pixel_mask"))
        probe = _first([*_groups(entry, "source"), entry], ("illumination", "probe"))
        if probe is not None and probe.dtype.kind == "f" and probe.shape[-1:] != (2,):
            notes.append("The probe of the file is not complex and is left out")
            probe = None
        values, said = (None, []) if probe is None else read_probe(probe)
        bad, heeded = (None, []) if mask is None else read_cxi_mask(mask)
        return FileContents(
            where=location(entry),
            frames=stack,
            frame_axes=_axes(entry, dataset),
            geometry=_geometry(entry, notes),
            positions=_positions(entry, notes),
            probe=values,
            mask=bad,
            notes=[*notes, *said, *heeded],
        )


def _entries(files: ScanFiles) -> Iterator[h5py.Group]:
    file = files.hdf5
    for name in [] if file is None else [name for name in names_in(file) if name.lower().startswith("entry")]:
        entry = None if file is None else find_group(file, name)
        if entry is not None and read_text(find_dataset(entry, ["definition"])) in DEFINITIONS:
            yield entry


def _groups(entry: h5py.Group, kind: str) -> list[h5py.Group]:
    """Return the groups called `kind`, with or without a number, in the entry and in its instrument and sample."""
    parents = [entry]
    for parent in ("instrument", "sample"):
        parents += [
            group for name in names_in(entry) if _is(name, parent) and (group := find_group(entry, name)) is not None
        ]
    return [
        group
        for parent in parents
        for name in sorted(names_in(parent))
        if _is(name, kind) and (group := find_group(parent, name)) is not None
    ]


def _is(name: str, kind: str) -> bool:
    return re.fullmatch(rf"{kind}(_\d+)?", name.lower()) is not None


def _first(groups: list[h5py.Group], names: tuple[str, ...]) -> h5py.Dataset | None:
    return next((found for group in groups if (found := find_dataset(group, names)) is not None), None)


def _frames(entry: h5py.Group) -> h5py.Dataset | None:
    found = _first([*_groups(entry, "data"), *_groups(entry, "detector")], ("data",))
    return found if found is not None and found.ndim >= 3 and found.size else None


def _axes(entry: h5py.Group, dataset: h5py.Dataset) -> FrameAxes | None:
    """Return the order of the frames' axes if names of axes or lengths of offsets in the file say it."""
    for item in (dataset, *_groups(entry, "data"), *_groups(entry, "detector")):
        if "axes" not in item.attrs:
            continue
        text = item.attrs["axes"]
        names = [as_text(one) for one in np.ravel(text)] if np.ndim(text) else re.split(r"[\s:,\[\]]+", as_text(text))
        last = [name[:1].lower() for name in names if name][-2:]
        if sorted(last) == ["x", "y"] and len([name for name in names if name]) == dataset.ndim:
            return FrameAxes("".join(last))
    offsets = {axis: _first(_groups(entry, "detector"), (f"{axis}_pixel_offset",)) for axis in "xy"}
    rows, columns = dataset.shape[-2:]
    if rows == columns or offsets["y"] is None or offsets["x"] is None:
        return None
    lengths = (offsets["y"].size, offsets["x"].size)
    return {(rows, columns): FrameAxes.YX, (columns, rows): FrameAxes.XY}.get(lengths)


def _geometry(entry: h5py.Group, notes: list[str]) -> FoundGeometry:
    def length_m(name: str, what: str) -> float | None:
        found = _first(_groups(entry, "detector"), (name,))
        return None if found is None else read_quantity(found, Quantity.LENGTH, default=LengthUnit.METRE, what=what)

    return FoundGeometry(
        energy_eV=_energy_eV(entry, notes),
        detector_distance_m=length_m("distance", "detector distance"),
        detector_pixel_size_m=(
            length_m("y_pixel_size", "detector pixel size along y"),
            length_m("x_pixel_size", "detector pixel size along x"),
        ),
    )


def _energy_eV(entry: h5py.Group, notes: list[str]) -> float | None:  # noqa: N802
    """Return the photon energy of the beam; that of the source is the storage ring's."""
    dataset = _first(_groups(entry, "beam"), layout.BEAM_ENERGIES)
    if dataset is None:
        return None
    what = "photon energy"
    if unit_of(dataset, Quantity.ENERGY, what=what) is not None:
        return read_quantity(dataset, Quantity.ENERGY, default=EnergyUnit.ELECTRONVOLT, what=what)
    value = one_number(read_numbers(dataset, what=what), what=what, where=location(dataset))
    if 0 < value < LARGEST_IN_JOULE:
        unit = EnergyUnit.JOULE
    elif value >= SMALLEST_IN_EV:
        unit = EnergyUnit.ELECTRONVOLT
    else:
        raise UserError(
            f"{location(dataset)}: the photon energy is {value:g} without a unit; "
            "give it with --set source.geometry.energy_eV=8000"
        )
    notes.append(f"The photon energy has no unit; {value:g} can only be {unit}")
    return value * scale(unit)


def _positions(entry: h5py.Group, notes: list[str]) -> Positions | None:
    translation = find_dataset(entry, layout.TRANSLATION_ALTERNATIVES) or _first(
        [*_groups(entry, "data"), *_groups(entry, "detector"), *_groups(entry, "geometry")], ("translation",)
    )
    if translation is not None:
        return positions_of_translation(translation)
    axes = _positioners(entry) or _transformations(entry)
    if axes is None:
        return None
    y, x = (_axis_m(dataset, notes) for dataset in axes)
    if len(y) != len(x):
        raise UserError(f"{location(entry)}: there are {len(y)} y positions but {len(x)} x positions")
    return Positions(np.stack([y, x], axis=1))


def _axis_m(dataset: h5py.Dataset, notes: list[str]) -> np.ndarray:
    unit: Unit | None = unit_of(dataset, Quantity.LENGTH, what="positions")
    if unit is None:
        notes.append(f"Positions in {dataset.name} have no unit; they are taken for metres")
    return read_numbers(dataset, what="positions").reshape(-1) * scale(unit or LengthUnit.METRE)


def _positioners(entry: h5py.Group) -> tuple[h5py.Dataset, h5py.Dataset] | None:
    """Return the values (y, x) of the positioners that say which axis they are."""
    groups = _groups(entry, "positioner")
    values = [(group, find_dataset(group, ("value", "raw_value"))) for group in groups]
    moving = [(group, found) for group, found in values if found is not None and found.size > 1]
    if len(moving) < 2:
        return None
    found: dict[str, h5py.Dataset] = {}
    for group, dataset in moving:
        words = re.findall(r"[xyz]", read_text(find_dataset(group, ["name"])).lower())
        if words:
            found.setdefault(words[-1], dataset)
    if not {"x", "y"} <= set(found):
        first, second = (str(dataset.name) for _, dataset in moving[:2])
        raise UserError(
            f"{location(entry)}: which positioner is x and which is y is not said; say it, such as "
            f"{set_option('source.positions.path_x', first)} {set_option('source.positions.path_y', second)}"
        )
    return found["y"], found["x"]


def _transformations(entry: h5py.Group) -> tuple[h5py.Dataset, h5py.Dataset] | None:
    for parent in (*_groups(entry, "transformations"), *_groups(entry, "data")):
        y, x = (find_item(parent, name) for name in ("y", "x"))
        if isinstance(y, h5py.Dataset) and isinstance(x, h5py.Dataset):
            return y, x
    return None
