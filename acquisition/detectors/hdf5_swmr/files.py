"""Opens files that others are writing: without disturbing them, and without leaving the folder."""

from __future__ import annotations

import fcntl
import os
import time
from enum import Enum
from pathlib import Path

import h5py

from ptychoflow.acquisition.readers.hdf5 import HDF5_ERRORS, one_line
from ptychoflow.acquisition.readers.outside import MAXIMUM_DEPTH, is_inside

SIGNATURE = b"\x89HDF\r\n\x1a\n"
SIGNATURE_PLACES = (0, *(512 << power for power in range(12)))
FLAGS_PLACE = 11
FLAGS_VERSION = 3
"""Of the superblock: older ones do not say whether a file is being written."""
WRITING, WRITING_SWMR = 0x01, 0x04


class Stage(Enum):
    """How far the writing of a file is."""

    ABSENT = "absent"
    """There is no such file."""
    UNREADABLE = "unreadable"
    """It is being made, or copied, or written in a way that nobody can read yet."""
    GROWING = "growing"
    """It is being written in SWMR mode."""
    CLOSED = "closed"
    """Nobody is writing it, but somebody did a moment ago and may open it again."""
    WRITTEN = "written"
    """Nobody is writing it, nor will."""


class Watched:
    """Since when a file has not changed, as it was seen: the clock of a file server may be ahead."""

    def __init__(self) -> None:
        self._state: tuple[int, int] | None = None
        self._since_s = 0.0

    def unchanged_s(self, found: os.stat_result) -> float:
        """Return for how long a file has not changed, as far as is known."""
        state = found.st_size, found.st_mtime_ns
        if state != self._state:
            self._state, self._since_s = state, time.monotonic()
        return max(time.monotonic() - self._since_s, time.time() - found.st_mtime)


def stage_of(path: Path, *, settle_s: float, watched: Watched | None = None) -> Stage:
    """Return how far a file is.

    Args:
        path: the file.
        settle_s: one that is written must not have changed for so long. Of one that does not say whether it is being
            written a lock is then tried, and not kept, so that nobody's writing fails for it.
        watched: of a file that is looked at again and again.
    """
    watched = watched or Watched()
    try:
        with path.open("rb") as file:
            superblock = _superblock(file.fileno())
            if len(superblock) <= FLAGS_PLACE:
                return Stage.UNREADABLE
            settled = watched.unchanged_s(os.fstat(file.fileno())) >= settle_s
            if superblock[len(SIGNATURE)] >= FLAGS_VERSION:
                return _stage_of_flags(superblock[FLAGS_PLACE], settled=settled)
            if settled:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                fcntl.flock(file, fcntl.LOCK_UN)
            return Stage.WRITTEN if settled else Stage.UNREADABLE
    except FileNotFoundError:
        return Stage.ABSENT
    except OSError:
        return Stage.UNREADABLE


def _stage_of_flags(flags: int, *, settled: bool) -> Stage:
    if flags & WRITING_SWMR:
        return Stage.GROWING
    if flags & WRITING:
        return Stage.UNREADABLE
    return Stage.WRITTEN if settled else Stage.CLOSED


def _superblock(file: int) -> bytes:
    for place in SIGNATURE_PLACES:
        head = os.pread(file, FLAGS_PLACE + 1, place)
        if head.startswith(SIGNATURE):
            return head
    return b""


def open_inside(folder: Path, name: str) -> h5py.File:
    """Open a file of a folder for reading while another program may be writing it. No lock is taken.

    Raises:
        ValueError: it cannot be read (yet), or lies outside of the folder.
    """
    path = folder / name
    if not is_inside(path, folder):
        raise ValueError(f"{path} lies outside of {folder}; it is not read")
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file")
    try:
        return h5py.File(path, "r", libver="latest", swmr=True, locking=False)
    except HDF5_ERRORS as error:
        raise ValueError(f"{path} cannot be opened: {one_line(error)}") from error


def find_inside(group: h5py.Group, name: str, folder: Path) -> h5py.Dataset:
    """Return a dataset that is kept in the folder, following links that stay in it.

    Raises:
        ValueError: there is none, or it is kept elsewhere, or put together from other datasets.
    """
    where = f"{group.file.filename}: {name}"
    try:
        found = _walk(group, name, folder, depth=0)
        if not isinstance(found, h5py.Dataset):
            raise ValueError(f"{where} is no dataset")
        if found.external is not None:
            raise ValueError(f"{where} keeps its values in files that are not HDF5; it is not read")
        if found.is_virtual:
            raise ValueError(f"{where} is a virtual dataset; name one that holds values itself")
    except HDF5_ERRORS as error:
        raise ValueError(one_line(error) if isinstance(error, ValueError) else f"{where}: {one_line(error)}") from error
    return found


def _walk(group: h5py.Group, name: str, folder: Path, *, depth: int) -> h5py.Group | h5py.Dataset:
    if depth > MAXIMUM_DEPTH:
        raise ValueError(f"{group.file.filename}: {name} is a link to links without end")
    here: h5py.Group | h5py.Dataset = group["/"] if name.startswith("/") else group
    parts = [part for part in name.split("/") if part not in {"", "."}]
    for place, part in enumerate(parts):
        link = here.get(part, getlink=True) if isinstance(here, h5py.Group) else None
        if link is None:
            raise ValueError(f"{group.file.filename}: there is no {name}")
        rest = "/".join(parts[place + 1 :])
        if isinstance(link, h5py.ExternalLink):
            beside = Path(here.file.filename).parent / link.filename
            other = open_inside(folder, os.path.relpath(beside, folder))
            return _walk(other["/"], f"/{link.path}/{rest}", folder, depth=depth + 1)
        if isinstance(link, h5py.SoftLink):
            return _walk(here, f"{link.path}/{rest}", folder, depth=depth + 1)
        here = here[part]
    return here
