"""Which reader reads a file: the first that recognises what is in it."""

from __future__ import annotations

from pathlib import Path

from ptychoflow.acquisition.readers.cxi import CxiReader
from ptychoflow.acquisition.readers.eiger import EigerReader
from ptychoflow.acquisition.readers.fold_slice import FoldSliceReader
from ptychoflow.acquisition.readers.map_files import load_dataset_map
from ptychoflow.acquisition.readers.mapped import MappedReader
from ptychoflow.acquisition.readers.nexus import NexusReader
from ptychoflow.acquisition.readers.npy import NpyReader
from ptychoflow.acquisition.readers.ptychodus import PtychodusReader
from ptychoflow.acquisition.readers.ptychonn import PtychonnReader
from ptychoflow.acquisition.readers.ptyd import PtydReader
from ptychoflow.acquisition.readers.reader import FileFormat, Reader, ScanFiles
from ptychoflow.acquisition.readers.recording import RecordingReader
from ptychoflow.acquisition.readers.survey import stacks_in
from ptychoflow.acquisition.readers.tiff import TiffReader
from ptychoflow.acquisition.readers.tike import TikeReader
from ptychoflow.acquisition.source_settings import ReplaySettings
from ptychoflow.streaming.errors import UserError

# The narrower ones first: a recording is CXI, too.
READERS: tuple[type[FileFormat], ...] = (
    RecordingReader,
    NexusReader,
    CxiReader,
    EigerReader,
    PtydReader,
    PtychodusReader,
    FoldSliceReader,
    TikeReader,
    PtychonnReader,
    NpyReader,
    TiffReader,
)


class UnknownLayout(UserError):
    """An HDF5 file that no reader recognises: a dataset map can say where its data is."""

    def __init__(self, path: Path, text: str) -> None:
        super().__init__(f"{path}: {text}")
        self.path = path


def choose_reader(files: ScanFiles, settings: ReplaySettings) -> Reader:
    """Return the reader of `files`.

    Raises:
        UnknownLayout: it is HDF5 of another layout.
        UserError: it is no file that can be read.
    """
    if settings.dataset_map is not None:
        return MappedReader(files, load_dataset_map(settings.dataset_map, settings.map_values))
    for reader in READERS:
        if reader.recognises(files):
            return reader(files)
    if files.hdf5 is None:
        raise UserError(_why_not(files, ", ".join(reader.format_name for reader in READERS)))
    raise UnknownLayout(
        files.path,
        f"HDF5, but neither CXI nor a recording nor another format that is known; say in a dataset map "
        "where its data is (--map FILE): 'ptychoflow inspect' lists what is in it and prints a draft of one. "
        f"Datasets with frames may be: {', '.join(stacks_in(files.hdf5)) or 'none'}",
    )


def _why_not(files: ScanFiles, formats: str) -> str:
    if files.path.is_dir():
        return f"{files.path}: this is a folder without frames that can be read; name a scan file ({formats})"
    if files.path.stat().st_size == 0:
        return f"{files.path}: the file is empty: this is not an HDF5 file, nor any other; copy it again"
    if files.path.suffix in {".bz2", ".gz", ".xz", ".zip", ".zst"}:
        return f"{files.path}: the file is packed; unpack it first"
    return f"{files.path}: this is not an HDF5 file, and none of the other formats that can be read ({formats})"
