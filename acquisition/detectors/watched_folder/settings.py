"""Configuration of a watched folder, and of what writes into one."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import PositiveFloat, PositiveInt

from ptychoflow.acquisition.detectors.hdf5_swmr.settings import FileName
from ptychoflow.streaming.settings import Settings


class SeriesBy(StrEnum):
    """What makes a series of files."""

    FILE = "file"
    """Every file is one."""
    FOLDER = "folder"
    """Every folder within the watched one is one, of files with their number as the last one in the name."""
    NAME = "name"
    """Files whose names are the same before the last number in them, which is the file's."""


class FrameFormat(StrEnum):
    """Of files with frames."""

    TIFF = "tiff"
    NPY = "npy"

    @property
    def ending(self) -> str:
        """Of names."""
        return ".tif" if self is FrameFormat.TIFF else ".npy"


class WatchedFolderSettings(Settings):
    """Frames from files that come one after the other."""

    kind: Literal["watched-folder"] = "watched-folder"
    folder: Path
    """Folder that is watched. Links in it are not followed."""
    pattern: FileName = "*.tif*"
    """Names of the files; `*` stands for anything. Names that begin with a point are left out. What ends with `.npy` is
    taken for a NumPy array, anything else for TIFF."""
    series: SeriesBy
    """What makes a series of files; nothing in a folder tells."""
    frames_per_file: PositiveInt = 1
    """Frames in every file of a series by folder or name; the last one may have fewer. The number of a frame is the
    file's times this, and its place in the file, from 0."""
    files_per_series: PositiveInt | None = None
    """A series of so many files is complete; None: when the next one begins, or when nothing more comes."""
    earlier_files: bool = False
    """Take files that were there before the run began, too."""
    settle_s: PositiveFloat = 0.5
    """A file is read when nothing has changed in it for so long."""
    unreadable_s: PositiveFloat = 10.0
    """A file that cannot be read to its end is left out when nothing has changed in it for so long."""
    max_file_bytes: PositiveInt = 1 << 30
    """Larger files are refused."""
    max_frame_px: PositiveInt = 1 << 26
    """Frames with more pixels are refused."""


class WatchedFolderSimulatorSettings(Settings):
    """Writes a file for every frame of a scan."""

    kind: Literal["watched-folder"] = "watched-folder"
    folder: Path
    """Folder that files are written into; made if need be."""
    series: Literal[SeriesBy.FOLDER, SeriesBy.NAME] = SeriesBy.FOLDER
    """Whether every series has a folder of its own, or only a name."""
    format: FrameFormat = FrameFormat.TIFF
    """Of the files."""
