"""Open a scan source: a file or a simulation."""

from __future__ import annotations

import logging
from typing import Protocol

import h5py

from ptychoflow.acquisition.preprocess import FilePerspective
from ptychoflow.acquisition.readers.cxi import CxiReader
from ptychoflow.acquisition.readers.dataset_map import load_dataset_map
from ptychoflow.acquisition.readers.hdf5 import open_hdf5
from ptychoflow.acquisition.readers.mapped import MappedReader
from ptychoflow.acquisition.readers.recording import RecordingReader
from ptychoflow.acquisition.readers.stored import StoredPerspective, check
from ptychoflow.acquisition.scan import Scan
from ptychoflow.acquisition.simulation.scan import SimulatedScan
from ptychoflow.acquisition.source_settings import PreprocessSettings, ReplaySettings, SimulationSettings
from ptychoflow.streaming.errors import UserError

log = logging.getLogger(__name__)


class Reader(Protocol):
    """What every file format offers."""

    format_name: str
    name: str

    def __len__(self) -> int:
        """Return the number of perspectives."""

    def read(self, index: int) -> StoredPerspective:
        """Return perspective `index` without its frames."""


def open_scan(settings: ReplaySettings | SimulationSettings) -> Scan:
    """Open the source. Every perspective's positions and geometry are checked; frames are read later, in parts.

    Raises `UserError` for a file that is missing, damaged, of unknown layout, or no far-field ptychographic scan.
    """
    if isinstance(settings, SimulationSettings):
        return SimulatedScan(settings)
    file = open_hdf5(settings.path)
    try:
        reader = _choose_reader(file, settings)
        log.info("%s: read as %s", settings.path, reader.format_name)
        return FileScan(file, reader, settings.preprocess)
    except UserError:
        file.close()
        raise


def _choose_reader(file: h5py.File, settings: ReplaySettings) -> Reader:
    if settings.dataset_map is not None:
        return MappedReader(file, load_dataset_map(settings.dataset_map))
    if RecordingReader.recognises(file):
        return RecordingReader(file)
    if CxiReader.recognises(file):
        return CxiReader(file)
    raise UserError(
        f"{file.filename}: neither CXI nor a recording; say in a dataset map (dataset_map = TOML file) where its data "
        f"is. Datasets with frames may be: {', '.join(_stacks(file)) or 'none'}"
    )


def _stacks(file: h5py.File) -> list[str]:
    """Return the names of all datasets with three axes."""
    names: list[str] = []

    def collect(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim == 3:
            names.append(f"/{name}")

    file.visititems(collect)
    return names


def _check_same_frames(perspectives: list[StoredPerspective]) -> None:
    """Raise `UserError` unless one network fits the frames of all perspectives."""
    first, *others = perspectives
    for other in others:
        if other.geometry.frame_shape_px != first.geometry.frame_shape_px:
            raise UserError(
                f"{other.where}: frames have {other.geometry.frame_shape_px} pixels but those of {first.where} have "
                f"{first.geometry.frame_shape_px}; put perspectives of different frames into files of their own"
            )


class FileScan(Scan):
    """The perspectives of one file."""

    def __init__(self, file: h5py.File, reader: Reader, preprocess: PreprocessSettings) -> None:
        self.name = reader.name
        self._file = file
        self._preprocess = preprocess
        self._stored = [reader.read(index) for index in range(len(reader))]
        for stored in self._stored:
            check(stored)
        _check_same_frames(self._stored)
        self._perspectives: dict[int, FilePerspective] = {}
        self.notes = [f"Read as {reader.format_name}", *self.perspective(0).notes]

    def __len__(self) -> int:
        """Return the number of perspectives."""
        return len(self._stored)

    @property
    def frames(self) -> int:
        """Frames of all perspectives together."""
        return sum(len(stored.positions_px) for stored in self._stored)

    def perspective(self, index: int) -> FilePerspective:
        """Return perspective `index`. Reads frames where a probe or bad pixels must be found."""
        if not 0 <= index < len(self):
            raise IndexError(f"perspective {index} of {len(self)}")
        if index not in self._perspectives:
            self._perspectives[index] = FilePerspective(self._stored[index], self._preprocess)
        return self._perspectives[index]

    def close(self) -> None:
        """Close the file."""
        self._file.close()
