"""What every file format offers, and what a reader is given to work with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Protocol

import h5py

from ptychoflow.acquisition.readers.contents import FileContents
from ptychoflow.acquisition.readers.hdf5 import PARTIAL_SUFFIX, open_hdf5
from ptychoflow.streaming.errors import UserError


class ScanFiles:
    """The file or folder that the user named, and what a format keeps beside it. All stay open until `close`."""

    def __init__(self, path: Path, *, companion: str | None = None) -> None:
        """Open `path` if it is HDF5. Raises `UserError` if there is nothing to read."""
        self.companion = companion
        """The other file of a format that keeps a scan in two, as the user named it; None if it is to be found."""
        if not path.exists():
            raise UserError(f"{path}: there is no such file; check the path")
        self.path = path
        self._open: dict[Path, h5py.File] = {}
        self._closing: list[Callable[[], None]] = []
        self.hdf5: h5py.File | None = None
        """The file itself; None if it is a folder, or not HDF5."""
        if path.is_file() and (path.suffix == PARTIAL_SUFFIX or _looks_like_hdf5(path)):
            self.hdf5 = self.open(path)

    @property
    def name(self) -> str:
        """Return the name without ending."""
        return self.path.stem

    def open(self, path: Path) -> h5py.File:
        """Return an HDF5 file, opened once. Raises `UserError` as `open_hdf5`."""
        if path not in self._open:
            self._open[path] = open_hdf5(path)
        return self._open[path]

    def on_close(self, close: Callable[[], None]) -> None:
        """Call `close` when the scan is closed."""
        self._closing.append(close)

    def close(self) -> None:
        """Close all files."""
        for close in self._closing:
            close()
        self._closing.clear()
        for file in self._open.values():
            file.close()
        self._open.clear()


def _looks_like_hdf5(path: Path) -> bool:
    try:
        return bool(h5py.is_hdf5(path))
    except OSError:
        return False


class Reader(Protocol):
    """Reads one scan."""

    format_name: ClassVar[str]
    """For people."""

    @property
    def name(self) -> str:
        """The scan's name."""

    @property
    def notes(self) -> list[str]:
        """What must be said of the file as a whole."""

    def __len__(self) -> int:
        """Return the number of perspectives."""

    def read(self, index: int) -> FileContents:
        """Return what the file holds of perspective `index`, from 0; frames are not read.

        Raises:
            UserError: something is missing, damaged, or of the wrong shape or type.
        """


class FileFormat(Reader, Protocol):
    """Reads the scans of one file format."""

    def __init__(self, files: ScanFiles) -> None:
        """Take files that `recognises` has accepted. May raise `UserError`."""

    @staticmethod
    def recognises(files: ScanFiles) -> bool:
        """Whether these are files of this format, judged by what is in them."""


class FormatReader:
    """What most formats share: one perspective in a file, named like it."""

    def __init__(self, files: ScanFiles) -> None:
        self._files = files
        self.name = files.name
        self.notes: list[str] = []

    def __len__(self) -> int:
        """Return 1."""
        return 1
