"""What may be what in an HDF5 file of unknown layout: every dataset, through links, sorted by what it could be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

import h5py
import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.readers.hdf5 import HDF5_ERRORS, location, with_known_type
from ptychoflow.acquisition.readers.links import dangling_link, missing_sources
from ptychoflow.acquisition.readers.natural import natural_order
from ptychoflow.acquisition.readers.outside import refuse_outside_links
from ptychoflow.acquisition.readers.quantities import UNIT_ATTRIBUTES
from ptychoflow.acquisition.readers.units import as_text
from ptychoflow.acquisition.reading import READING
from ptychoflow.streaming.errors import UserError

MAXIMUM_DATASETS = 20_000
MAXIMUM_DEPTH = 32
SMALLEST_FRAME_PX = 8
SMALL_BYTES = 2**24
"""What is read whole to tell its range; of frames, two are looked at, or this much of them."""


class Role(StrEnum):
    """What a dataset could be."""

    FRAMES = "frames"
    POSITIONS = "positions"
    ENERGY = "photon energy"
    WAVELENGTH = "wavelength"
    DISTANCE = "detector distance"
    PIXEL = "detector pixel size"
    ANGLE = "rotation angle"
    MASK = "mask"
    PROBE = "probe"


WORDS: dict[Role, tuple[str, ...]] = {
    Role.WAVELENGTH: ("wavelength", "lambda"),
    Role.ENERGY: ("energy", "photon", "ev"),
    Role.DISTANCE: ("distance", "det_dist", "z_m", "detector_z", "camera_length"),
    Role.PIXEL: ("pixel_size", "pixelsize", "psize", "pixel_um", "pixel"),
    Role.ANGLE: ("angle", "theta", "rotation", "omega", "phi", "chi"),
}
POSITION_WORDS = ("pos", "trans", "scan", "motor", "pseudo", "stage", "point", "sample", "x", "y", "coord")


@dataclass(frozen=True)
class Candidate:
    """A dataset, and what it could be."""

    role: Role
    path: str
    shape: tuple[int, ...]
    dtype: str
    unit: str
    """As the file states it; empty if it does not."""
    values: str
    """Its value, or its range."""
    named: bool = True
    """Whether its name says so, too."""


@dataclass
class Survey:
    """What could be what, the likeliest first, and links that lead nowhere."""

    candidates: list[Candidate] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def of(self, role: Role) -> list[Candidate]:
        """Return the candidates for `role`."""
        return [candidate for candidate in self.candidates if candidate.role is role]


def survey(file: h5py.File) -> Survey:
    """Look through `file` and what it links to. Reads small datasets, and two frames of large ones."""
    found = Survey()
    datasets = list(_walk(file, "", found.missing, depth=0, seen=set()))
    stacks = sorted(((path, one) for path, one in datasets if _is_stack(one)), key=lambda item: -item[1].size)
    counts = {_frames_in(one) for _, one in stacks}
    shapes = {one.shape[-2:] for _, one in stacks}
    for path, dataset in [*stacks, *(item for item in datasets if not _is_stack(item[1]))]:
        role, named = _role(path, dataset, counts, shapes)
        if role is not None:
            found.candidates.append(_candidate(role, path, dataset, named=named))
    order = list(Role)
    found.candidates.sort(key=lambda one: (order.index(one.role), not one.named))
    return found


def stacks_in(file: h5py.File) -> list[str]:
    """Return the paths of datasets that could be frames, the largest first."""
    datasets = _walk(file, "", [], depth=0, seen=set())
    stacks = [(path, one) for path, one in datasets if _is_stack(one)]
    return [path for path, _ in sorted(stacks, key=lambda item: -item[1].size)]


def _walk(
    group: h5py.Group, path: str, missing: list[str], *, depth: int, seen: set[object]
) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yield every dataset once, with its path from the root; follow links, also into other files."""
    try:
        # What is really here before what is linked to, so that it is called by its own name.
        linked = {name: not isinstance(group.get(name, getlink=True), h5py.HardLink) for name in group}
        names = sorted(group, key=lambda name: (linked[name], natural_order(name)))
    except HDF5_ERRORS:
        return
    for name in names:
        here = f"{path}/{name}"
        try:
            refuse_outside_links(group, name)
            item = with_known_type(group.get(name))
            identity = None if item is None else (item.file.filename, h5py.h5o.get_info(item.id).addr)
        except HDF5_ERRORS:
            missing.append(f"{here} (cannot be read)")
            continue
        except UserError as refused:
            missing.append(str(refused))
            continue
        if item is None:
            missing.append(f"{here} links to {dangling_link(group, name) or 'nothing'}")
        if identity is None or identity in seen or len(seen) > MAXIMUM_DATASETS:
            continue
        seen.add(identity)
        if isinstance(item, h5py.Dataset) and item.shape is not None:
            yield here, item
        elif isinstance(item, h5py.Group) and depth < MAXIMUM_DEPTH:
            yield from _walk(item, here, missing, depth=depth + 1, seen=seen)


def _is_stack(dataset: h5py.Dataset) -> bool:
    small = dataset.ndim not in {3, 4} or min(dataset.shape[-2:]) < SMALLEST_FRAME_PX
    return not small and dataset.dtype.kind in "iuf" and _frames_in(dataset) > 1


def _frames_in(dataset: h5py.Dataset) -> int:
    return int(np.prod(dataset.shape[:-2]))


def _role(path: str, dataset: h5py.Dataset, counts: set[int], shapes: set[tuple[int, ...]]) -> tuple[Role | None, bool]:
    """Return what a dataset could be, and whether its name says so too."""
    if _is_stack(dataset):
        return Role.FRAMES, True
    name = path.lower().rsplit("/", 1)[-1]
    if dataset.dtype.kind == "c":
        return (Role.PROBE if dataset.shape[-2:] in shapes else None), "prob" in name or "illum" in name
    if dataset.ndim == 2 and dataset.shape in shapes and dataset.dtype.kind in "iub":
        return Role.MASK, "mask" in name or "bad" in name
    return _role_of_numbers(path, name, dataset, counts) if dataset.dtype.kind in "iuf" else (None, False)


def _role_of_numbers(path: str, name: str, dataset: h5py.Dataset, counts: set[int]) -> tuple[Role | None, bool]:
    for role, words in WORDS.items():
        if dataset.ndim <= 1 and any(word in name for word in words) and (dataset.size == 1 or role is Role.ENERGY):
            return role, True
    if dataset.size > 1 and any(count in dataset.shape for count in counts) and dataset.ndim <= 3:
        return Role.POSITIONS, any(word in path.lower() for word in POSITION_WORDS)
    return None, False


def _candidate(role: Role, path: str, dataset: h5py.Dataset, *, named: bool) -> Candidate:
    unit = next((text for name in UNIT_ATTRIBUTES if (text := _attribute(dataset, name))), "")
    return Candidate(role, path, dataset.shape, str(dataset.dtype), unit, _values(dataset), named)


def _attribute(dataset: h5py.Dataset, name: str) -> str:
    try:
        return as_text(dataset.attrs[name]) if name in dataset.attrs else ""
    except HDF5_ERRORS:
        return ""


def _small_part(dataset: h5py.Dataset) -> npt.NDArray[np.generic]:
    """Read as much of a large dataset as may be read: of frames, from the middle one."""
    shape: tuple[int, ...] = (1, *dataset.shape)
    *outer, rows, columns = shape
    wanted_columns = min(columns, SMALL_BYTES // dataset.dtype.itemsize)
    wanted_rows = min(rows, max(1, SMALL_BYTES // (wanted_columns * dataset.dtype.itemsize)))
    place = (*((length // 2) for length in outer), slice(0, wanted_rows), slice(0, wanted_columns))
    return np.asarray(dataset[place[1:]])


def _values(dataset: h5py.Dataset) -> str:
    try:
        if dataset.dtype.kind == "c" or dataset.size == 0:
            return ""
        if missing_sources(dataset):
            return "kept in a file that is missing"
        READING.debug("%s", location(dataset))
        part = dataset[()] if dataset.nbytes <= SMALL_BYTES else _small_part(dataset)
    except (*HDF5_ERRORS, MemoryError):
        return "cannot be read"
    except UserError:
        return "kept outside of the file's folder"
    numbers = np.asarray(part, np.float64)
    if numbers.size == 1:
        return f"{numbers.reshape(-1)[0]:g}"
    finite = numbers[np.isfinite(numbers)]
    return f"{finite.min():g} to {finite.max():g}" if finite.size else "not finite"
