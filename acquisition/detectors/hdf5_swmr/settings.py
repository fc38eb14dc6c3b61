"""Configuration of growing HDF5 files, and of what writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from ptychoflow.acquisition.readers.dataset_map import PositionsMap
from ptychoflow.acquisition.readers.units import LengthUnit, PixelUnit
from ptychoflow.streaming.settings import Settings
from ptychoflow.streaming.written_as import written_as

DatasetPath = Annotated[str, Field(min_length=1, max_length=1024)]
FileName = Annotated[str, Field(max_length=255), written_as(r"[^/]+", "give names of files alone, without /")]


class Hdf5SwmrSettings(Settings):
    """Frames, positions or both from files in a folder, each of them a series, read while they grow."""

    kind: Literal["hdf5-swmr"] = "hdf5-swmr"
    folder: Path
    """Folder that files are written into. Nothing outside of it is read, wherever links in it lead."""
    pattern: FileName = "*.h5"
    """Names of the files that are series; `*` stands for anything. They are taken in the order in which they come."""
    earlier_files: bool = False
    """Take files that were written to their end before the run began, too."""
    frames: DatasetPath | None = None
    """Dataset of frames (frame, y, x); None if the frames come from elsewhere."""
    positions: PositionsMap | None = None
    """Datasets of positions, in the same files; None if they come from elsewhere. A row is a sample, numbered from 0
    unless `index` says otherwise."""
    settle_s: PositiveFloat = 1.0
    """A file that is not written in SWMR mode is taken when nothing has changed in it for so long, and any file that is
    closed is then complete."""
    quiet_s: PositiveFloat = 5.0
    """A file that was never closed is over when it has not grown for so long and the next one is there."""
    max_frame_px: PositiveInt = 1 << 26
    """Frames with more pixels are refused."""
    max_chunk_bytes: PositiveInt = 1 << 28
    """Datasets in larger chunks are refused: HDF5 decompresses a chunk as a whole."""

    @property
    def gives_positions(self) -> bool:
        """Whether positions are taken from the files."""
        return self.positions is not None

    @model_validator(mode="after")
    def _in_the_same_file(self) -> Self:
        if self.frames is None and self.positions is None:
            raise ValueError("give the dataset of frames, or positions, or both")
        positions = self.positions
        if positions is None:
            return self
        if positions.file is not None:
            raise ValueError("positions are datasets of the same file; for a table of its own use position-table")
        if isinstance(positions.unit, PixelUnit):
            raise ValueError("positions that come with a detector must be lengths, not pixels of the object")
        if positions.foreshortened_x:
            raise ValueError("positions shortened by the rotation angle need the angle, which is not known here")
        index = None if positions.index is None else positions.index.column
        if any(isinstance(column, str) for column in (positions.column_y, positions.column_x, index)):
            raise ValueError("columns of a dataset have no names: give their numbers, from 0")
        return self


class Hdf5SwmrSimulatorSettings(Settings):
    """Writes a file in SWMR mode for every series of a scan."""

    kind: Literal["hdf5-swmr"] = "hdf5-swmr"
    folder: Path
    """Folder that files are written into; made if need be."""
    frames: DatasetPath | None = "/entry/data/data"
    """Dataset of frames; None writes none."""
    positions: DatasetPath | None = "/entry/positions"
    """Dataset of positions (n, 2) as (x, y); None writes none."""
    unit: LengthUnit = LengthUnit.METRE
    """Unit of the positions."""
    frames_per_flush: PositiveInt = 1
    """Readers see frames when so many have been written."""
