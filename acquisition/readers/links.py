"""Parts of an HDF5 file that lie in other files: which of them are not there.

HDF5 says of a link to a missing file that there is no such dataset, and reads fill values where a part of a virtual
dataset is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py

from ptychoflow.acquisition.readers.outside import (
    MAXIMUM_DEPTH,
    find_beside,
    refuse_outside_links,
    refuse_outside_values,
)

Places = frozenset[tuple[Path, str]]
"""Datasets, by their files and names."""


@dataclass(frozen=True)
class MissingSource:
    """A part of a virtual dataset that is not there."""

    source: str
    """File, and what is missing in it."""
    start: int
    """First row of the virtual dataset that it should fill."""
    stop: int
    """The row after the last one."""


def dangling_link(group: h5py.Group, name: str, depth: int = 0) -> str | None:
    """Return the file (and what in it) that a link on the way to `name` leads to in vain; None if no link does."""
    here: h5py.Group | None = group["/"] if name.startswith("/") else group
    parts = [part for part in name.split("/") if part and part != "."]
    for place, part in enumerate(parts):
        if not isinstance(here, h5py.Group):
            return None
        link = here.get(part, getlink=True)
        if isinstance(link, h5py.ExternalLink) and (target := _broken_external(here, link)) is not None:
            return target
        if isinstance(link, h5py.SoftLink) and here.get(part) is None:
            rest = "/".join([link.path, *parts[place + 1 :]])
            beyond = dangling_link(here, rest, depth + 1) if depth < MAXIMUM_DEPTH else None
            return beyond or f"{link.path} in {here.file.filename}"
        here = here.get(part)
    return None


def _broken_external(group: h5py.Group, link: h5py.ExternalLink) -> str | None:
    path = find_beside(Path(group.file.filename), link.filename)
    if path is None:
        return str(Path(group.file.filename).parent / link.filename)
    try:
        with h5py.File(path, "r") as file:
            if file.get(link.path) is not None:
                return None
            return dangling_link(file, link.path, 1) or f"{link.path} in {path}"
    except OSError:
        return f"{path} (not a readable HDF5 file)"


def missing_sources(dataset: h5py.Dataset, above: Places = frozenset()) -> list[MissingSource]:
    """Return the parts of a virtual dataset whose files or datasets are missing; none for any other dataset.

    A part that is made of the dataset itself (of those `above` it) is missing, too: HDF5 would read it for ever.

    Raises:
        UserError: values are kept where the file may not take them from.
    """
    refuse_outside_values(dataset)
    if not dataset.is_virtual:
        return []
    above |= {(Path(dataset.file.filename).resolve(), dataset.name)}
    return [missing for source in dataset.virtual_sources() for missing in _missing(dataset, source, above)]


def _missing(dataset: h5py.Dataset, source: h5py.h5d.VDSmap, above: Places) -> Iterator[MissingSource]:
    lowest, highest = source.vspace.get_select_bounds()
    rows = dataset.shape[0] if dataset.shape else 1
    start, stop = min(int(lowest[0]), rows), min(int(highest[0]) + 1, rows)
    own = Path(dataset.file.filename)
    if "%b" in source.file_name or "%b" in source.dset_name:
        yield from _missing_numbered(own, source, start, rows)
        return
    path = own if source.file_name == "." else find_beside(own, source.file_name)
    if path is None:
        yield MissingSource(str(own.parent / source.file_name), start, stop)
    elif not _holds(path, source.dset_name, above):
        yield MissingSource(f"{source.dset_name} in {path}", start, stop)


def _missing_numbered(own: Path, source: h5py.h5d.VDSmap, start: int, rows: int) -> Iterator[MissingSource]:
    """Say whether the first of numbered files is missing: how many there should be is written nowhere."""
    name = source.file_name.replace("%b", "0")
    if find_beside(own, name) is None and name != ".":
        yield MissingSource(str(own.parent / name), start, rows)


def _holds(path: Path, name: str, above: Places) -> bool:
    try:
        with h5py.File(path, "r") as file:
            refuse_outside_links(file, name)
            found = file.get(name)
            if not isinstance(found, h5py.Dataset) or (path.resolve(), found.name) in above:
                return False
            return len(above) < MAXIMUM_DEPTH and not missing_sources(found, above)
    except (OSError, RuntimeError):
        return False
