"""Reads the table, once: what is in it becomes one message, so that a run that is resumed has the same positions."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.detectors.interface import Connection, Deliver, Part
from ptychoflow.acquisition.detectors.position_table.settings import PositionTableSettings
from ptychoflow.acquisition.readers.hdf5 import damage_told
from ptychoflow.acquisition.readers.positions import mean_by_number, read_positions
from ptychoflow.acquisition.readers.reader import ScanFiles
from ptychoflow.streaming.errors import UserError


class PositionTableConnection(Connection):
    """Delivers the table: one part with the numbers (n,) int64, one with the positions (n, 2) float64 as (y, x)."""

    def __init__(self, settings: PositionTableSettings) -> None:
        self._settings = settings

    def drain(self, deliver: Deliver, stop: threading.Event) -> None:
        """Deliver the table and wait for `stop`.

        Raises:
            UserError: the table cannot be read, or its positions have no unit of length.
        """
        numbers, positions_m = self._read(Path(str(self._settings.table.file)))
        deliver([numbers.astype("<i8").tobytes(), positions_m.astype("<f8").tobytes()])
        stop.wait()

    @staticmethod
    def begins_series(parts: Sequence[Part]) -> bool:
        """No: it belongs to all of them."""
        return False

    def _read(self, path: Path) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        with damage_told(path):
            files = ScanFiles(path)
            try:
                positions = read_positions(files, self._settings.table)
            finally:
                files.close()
        if positions.in_pixels:
            raise UserError(f"{path}: positions are pixels of the object; those that come with a detector are lengths")
        if len(positions.values) > self._settings.most_positions:
            raise UserError(
                f"{path}: {len(positions.values)} positions are more than most_positions = "
                f"{self._settings.most_positions}"
            )
        if positions.frames is None:
            return np.arange(len(positions.values)), positions.values
        return mean_by_number(positions.values, positions.frames)
