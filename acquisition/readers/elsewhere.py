"""Files beside a scan's file, as settings and dataset maps name them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py

from ptychoflow.acquisition.readers.reader import ScanFiles
from ptychoflow.streaming.errors import UserError

MASTER = "_master"
HDF5_ENDINGS = {".h5", ".hdf5", ".hdf", ".nxs", ".cxi"}
MAXIMUM_SEARCHED = 200
"""Of files beside a scan that are looked into."""


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


def companion_of(files: ScanFiles, usual: str, is_it: Callable[[h5py.File], bool], what: str) -> h5py.File:
    """Return the other HDF5 file of a scan that is kept in two.

    It is the one that the user named; or else `usual` beside the first; or else the only file beside it that `is_it`
    accepts. Raises `UserError` that says what is missing, and how to name it.
    """
    if files.companion is not None:
        named = hdf5_of(files, files.companion)
        if not is_it(named):
            raise UserError(f"{named.filename}: this file does not hold the {what} of {files.path.name}")
        return named
    if (beside := files.path.with_name(usual)).is_file():
        return files.open(beside)
    others = [path for path in sorted(files.path.parent.iterdir()) if path.suffix in HDF5_ENDINGS and path.is_file()]
    found = [path for path in others[:MAXIMUM_SEARCHED] if path != files.path and _accepted(path, is_it)]
    if len(found) == 1:
        return files.open(found[0])
    text = "no file beside it does" if not found else f"{len(found)} files beside it could"
    raise UserError(
        f"{files.path}: another file must hold the {what} of this scan, but {text}; "
        "name it with --set source.companion=FILE"
    )


def _accepted(path: Path, is_it: Callable[[h5py.File], bool]) -> bool:
    try:
        with h5py.File(path, "r") as file:
            return is_it(file)
    except (OSError, RuntimeError):
        return False
