"""Configuration of positions from a table that is known before."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import PositiveInt, model_validator

from ptychoflow.acquisition.readers.dataset_map import PositionsMap
from ptychoflow.acquisition.readers.units import PixelUnit
from ptychoflow.streaming.settings import Settings


class PositionTableSettings(Settings):
    """Positions of every series from one table: text, `.npy`, `.npz` or HDF5."""

    kind: Literal["position-table"] = "position-table"
    table: PositionsMap
    """Where the table is, as in `source.positions`: `file` must be given. Rows are samples, numbered from 0 unless
    `index` says otherwise; rows with the same number are averaged."""
    most_positions: PositiveInt = 10_000_000
    """A longer table is refused."""

    @model_validator(mode="after")
    def _can_be_read_without_a_scan(self) -> Self:
        if self.table.file is None:
            raise ValueError("give the file of the table")
        if isinstance(self.table.unit, PixelUnit):
            raise ValueError("positions that come with a detector must be lengths, not pixels of the object")
        if self.table.foreshortened_x:
            raise ValueError("positions shortened by the rotation angle need the angle, which no table knows")
        return self
