"""Open HDF5 files and get datasets out of them, with errors that a user can act on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 - registers the filters of compressed detector files
import numpy as np
import numpy.typing as npt

from ptychoflow.streaming.errors import UserError

PARTIAL_SUFFIX = ".partial"


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
    except OSError as error:
        raise UserError(_why_unreadable(path, error)) from error


def _why_unreadable(path: Path, error: OSError) -> str:
    if "truncated" in str(error):
        return f"{path}: the file is truncated, its end is missing; copy it again"
    if not h5py.is_hdf5(path):
        return f"{path}: this is not an HDF5 file; give a CXI file, a recording, or HDF5 with a dataset map"
    return f"{path}: HDF5 cannot open the file: {error}"


def location(item: h5py.Group | h5py.Dataset, name: str = "") -> str:
    """Return where something is, for error messages: file and path inside it."""
    return f"{item.file.filename}: {item.name.rstrip('/')}{'/' + name if name else ''}"


def find_dataset(group: h5py.Group, names: Iterable[str]) -> h5py.Dataset | None:
    """Return the first of `names` in `group` that is a dataset, or None."""
    for name in names:
        if isinstance(found := group.get(name), h5py.Dataset):
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
    """Read a whole dataset. Raises `UserError` when its data is damaged."""
    try:
        return np.asarray(dataset[()])
    except OSError as error:
        raise UserError(f"{location(dataset)} cannot be read: {error}") from error


def read_number(dataset: h5py.Dataset, *, what: str) -> float:
    """Return the single number in `dataset` as a float; raise `UserError` when it is not one."""
    values = read_array(dataset)
    if values.size != 1 or values.dtype.kind not in "iuf":
        raise UserError(
            f"{location(dataset)}: the {what} must be one number, not {values.dtype} of shape {values.shape}"
        )
    return float(values.reshape(-1)[0])
