"""Files beside a scan's file, as settings and dataset maps name them."""

from __future__ import annotations

from pathlib import Path

import h5py

from ptychoflow.acquisition.readers.reader import ScanFiles
from ptychoflow.streaming.errors import UserError

MASTER = "_master"


def another_file(files: ScanFiles, name: str) -> Path:
    """Return the file that `name` means: `{stem}` and `{name}` filled in, beside the scan or with its whole path.

    Raises:
        UserError: there is no such file, or `*` fits several.
    """
    stem = files.path.stem
    filled = name.replace("{stem}", stem).replace("{name}", stem.removesuffix(MASTER))
    folder = files.path if files.path.is_dir() else files.path.parent
    if "*" in filled:
        found = sorted(folder.glob(filled)) if not Path(filled).is_absolute() else []
        if len(found) == 1:
            return found[0]
        text = "fits no file" if not found else f"fits {len(found)} files, {found[0].name} and others"
        raise UserError(f"{folder / filled}: this {text}; name the one that belongs to {files.path.name}")
    candidates = [folder / filled, Path(filled)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise UserError(f"{candidates[0]}: there is no such file; put it beside {files.path.name}, or name its whole path")


def hdf5_of(files: ScanFiles, name: str | None) -> h5py.File:
    """Return the HDF5 file `name`, or the scan's own for None. Raises `UserError` if it is not there or not HDF5."""
    if name is not None:
        return files.open(another_file(files, name))
    if files.hdf5 is None:
        raise UserError(f"{files.path}: this is not an HDF5 file, so a dataset cannot be in it; name the file as well")
    return files.hdf5
