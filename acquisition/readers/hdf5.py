"""Open HDF5 files and get datasets out of them, with errors that a user can act on."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 - registers the filters of compressed detector files
import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.readers.links import dangling_link, missing_sources
from ptychoflow.acquisition.readers.outside import refuse_outside_links, refuse_outside_values
from ptychoflow.acquisition.reading import READING
from ptychoflow.streaming.errors import UserError

log = logging.getLogger(__name__)

PARTIAL_SUFFIX = ".partial"
# What h5py raises for files that are damaged or hold what it does not know.
HDF5_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError)
MAXIMUM_TABLE_BYTES = 2**30
"""Of a dataset that is read whole: positions, masks, probes."""


def open_hdf5(path: Path) -> h5py.File:
    """Open `path` for reading. Raises `UserError` if it is missing, unfinished, truncated or not HDF5."""
    if not path.exists():
        raise UserError(f"{path}: there is no such file; check the path")
    if path.is_dir():
        raise UserError(f"{path}: this is a folder; name one HDF5 file")
    if path.suffix == PARTIAL_SUFFIX:
        raise UserError(f"{path}: this recording was never finished; record the scan again")
    try:
        return h5py.File(path, "r")
    except PermissionError as error:
        raise UserError(f"{path}: no permission to read this file") from error
    except HDF5_ERRORS as error:
        raise UserError(_why_unreadable(path, error)) from error


def _why_unreadable(path: Path, error: Exception) -> str:
    if "truncated" in str(error):
        return f"{path}: the file is truncated, its end is missing; copy it again"
    if not h5py.is_hdf5(path):
        return f"{path}: this is not an HDF5 file; give a CXI file, a recording, or HDF5 with a dataset map"
    return f"{path}: HDF5 cannot open the file: {one_line(error)}"


@contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """Turn what HDF5 says of a damaged file, from whichever call, into a `UserError` that names the file."""
    READING.debug("%s", path)
    try:
        yield
    except (*HDF5_ERRORS, ArithmeticError, MemoryError) as error:
        log.debug("%s", path, exc_info=True)
        raise UserError(f"{path}: the file is damaged, or not what it says it is: {one_line(error)}") from error


def names_in(group: h5py.Group) -> list[str]:
    """Return the names in a group, without those that are no text."""
    return [name for name in group if isinstance(name, str)]


def one_line(error: Exception) -> str:
    """Return what an exception says without line breaks."""
    return " ".join(str(error).split())


def location(item: h5py.Group | h5py.Dataset, name: str = "") -> str:
    """Return where something is, for error messages: the file, and the path inside it, unless that is its root."""
    inside = (item.name or "").rstrip("/") + (f"/{name}" if name else "")
    return f"{item.file.filename}: {inside}" if inside else str(item.file.filename)


def find_item(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset | None:
    """Return what stands at `name`, or None.

    Raises `UserError` for a link to a file that is not there, and for what is kept where the file may not take it from.
    """
    try:
        refuse_outside_links(group, name)
        found = with_known_type(group.get(name))
        if isinstance(found, h5py.Dataset):
            refuse_outside_values(found)
    except HDF5_ERRORS as error:
        raise UserError(f"{location(group, name)} cannot be read: {one_line(error)}") from error
    if found is None and (target := dangling_link(group, name)) is not None:
        raise UserError(
            f"{location(group, name)} links to {target}, which is missing; put it there, or give the file that holds it"
        )
    return found if isinstance(found, h5py.Group | h5py.Dataset) else None


def with_known_type(item: h5py.HLObject | None) -> h5py.HLObject | None:
    """Return it; raise one of `HDF5_ERRORS` for a dataset of numbers that there are none of in NumPy."""
    if isinstance(item, h5py.Dataset):
        _ = item.dtype
    return item


def find_group(group: h5py.Group, name: str) -> h5py.Group | None:
    """Return the group at `name`, or None. Raises `UserError` for a link to a file that is not there."""
    found = find_item(group, name)
    return found if isinstance(found, h5py.Group) else None


def find_dataset(group: h5py.Group, names: Iterable[str]) -> h5py.Dataset | None:
    """Return the first of `names` in `group` that is a dataset with values, or None.

    Raises `UserError` for a link to a file that is not there.
    """
    for name in names:
        found = find_item(group, name)
        if isinstance(found, h5py.Dataset) and found.shape is not None:
            return found
    return None


def require_dataset(group: h5py.Group, names: Iterable[str], *, what: str) -> h5py.Dataset:
    """Return the first of `names` that is a dataset; raise `UserError` that says `what` is missing."""
    names = tuple(names)
    dataset = find_dataset(group, names)
    if dataset is None:
        raise UserError(f"{location(group)}: the file has no {what}; expected a dataset {' or '.join(names)}")
    return dataset


def read_array(dataset: h5py.Dataset) -> npt.NDArray[np.generic]:
    """Read a whole dataset. Raises `UserError` when its data is damaged, missing, or far too large for what it is."""
    if dataset.nbytes > MAXIMUM_TABLE_BYTES:
        raise UserError(f"{location(dataset)}: {dataset.shape} values are too many for what is expected here")
    for missing in missing_sources(dataset):
        raise UserError(f"{location(dataset)} is kept in {missing.source}, which is missing; put it there")
    READING.debug("%s", location(dataset))
    try:
        return np.asarray(dataset[()])
    except HDF5_ERRORS as error:
        raise UserError(f"{location(dataset)} cannot be read: {one_line(error)}") from error


def read_numbers(dataset: h5py.Dataset, *, what: str) -> npt.NDArray[np.float64]:
    """Return real numbers of any shape; raise `UserError` when they are something else."""
    if dataset.dtype.kind not in "iuf":
        raise UserError(f"{location(dataset)}: the {what} must be numbers, not {dataset.dtype}")
    return read_array(dataset).astype(np.float64)


def read_text(dataset: h5py.Dataset | None) -> str:
    """Return the one text in `dataset`, empty if it holds none."""
    if dataset is None or dataset.size != 1 or dataset.dtype.kind not in "OS":
        return ""
    value = read_array(dataset).reshape(-1)[0]
    return value.decode("utf-8", errors="replace").strip("\0 ") if isinstance(value, bytes) else str(value)
