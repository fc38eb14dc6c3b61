"""Positions in a file that grows."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.detectors.hdf5_swmr.files import find_inside
from ptychoflow.acquisition.readers.dataset_map import PositionsMap
from ptychoflow.acquisition.readers.quantities import unit_of
from ptychoflow.acquisition.readers.units import LengthUnit, Quantity

MAX_NUMBER = 2**53
MAX_COLUMNS = 1 << 12


class WrittenPositions:
    """The datasets that a `PositionsMap` names. They need not be of the same length while they grow.

    Raises:
        ValueError: a dataset is not there, has another shape, or no unit.
        UserError: its unit is none of a length.
    """

    def __init__(self, file: h5py.File, positions: PositionsMap, folder: Path, *, max_chunk_bytes: int) -> None:
        self._file, self._folder, self._max_chunk_bytes = file, folder, max_chunk_bytes
        index = positions.index
        self._origin = 0 if index is None else index.origin
        if positions.path is None:
            self._y, self._x = self._find(positions.path_y), self._find(positions.path_x)
        else:
            first = positions.columns != "yx"
            place_y, place_x = positions.column_y, positions.column_x
            self._y = self._find(positions.path, int(first) if place_y is None else place_y)
            self._x = self._find(positions.path, int(not first) if place_x is None else place_x)
        self._number = None if index is None else self._find(index.path or positions.path, index.column)
        signs = (positions.sign_y, positions.sign_x)
        self._factors = [
            self._metres(column, positions) * sign for column, sign in zip((self._y, self._x), signs, strict=True)
        ]

    def refresh(self) -> int:
        """Return how many positions there are by now."""
        columns = [column for column in (self._y, self._x, self._number) if column is not None]
        for dataset, _ in columns:
            dataset.refresh()
        return min(len(dataset) for dataset, _ in columns)

    def read(self, start: int, stop: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Return numbers (n,) and positions (n, 2) in metres.

        Raises:
            ValueError: a number is no whole number.
        """
        columns = [
            _values(column, start, stop) * factor
            for column, factor in zip((self._y, self._x), self._factors, strict=True)
        ]
        if self._number is None:
            return np.arange(start, stop), np.stack(columns, axis=1)
        numbers = _values(self._number, start, stop)
        if not (np.abs(numbers) <= MAX_NUMBER).all() or (numbers != np.round(numbers)).any():
            raise ValueError("the index of the positions must be whole numbers; check which column or dataset it is")
        return numbers.astype(np.int64) - self._origin, np.stack(columns, axis=1)

    def _find(self, path: str | None, column: int | str | None = None) -> tuple[h5py.Dataset, int | None]:
        dataset = find_inside(self._file, str(path), self._folder)
        where = f"{self._file.filename}: {dataset.name}"
        number = column if isinstance(column, int) else None
        if dataset.dtype.kind not in "iuf" or dataset.dtype.itemsize > 8:
            raise ValueError(f"{where}: positions must be numbers, not {dataset.dtype}")
        if dataset.ndim != (1 if number is None else 2) or (number is not None and number >= dataset.shape[1]):
            wanted = "one axis" if number is None else f"two axes and a column {number}"
            raise ValueError(f"{where}: a dataset with {wanted} was expected, not shape {dataset.shape}")
        chunk_bytes = int(np.prod(dataset.chunks or (1,), dtype=np.float64)) * dataset.dtype.itemsize
        if chunk_bytes > self._max_chunk_bytes or np.prod(dataset.shape[1:]) > MAX_COLUMNS:
            raise ValueError(f"{where}: chunks of {chunk_bytes} bytes and rows of {dataset.shape[1:]} are not read")
        return dataset, number

    def _metres(self, column: tuple[h5py.Dataset, int | None], positions: PositionsMap) -> float:
        unit = positions.unit or unit_of(column[0], Quantity.LENGTH, what="positions")
        if not isinstance(unit, LengthUnit):
            raise ValueError(
                f"{self._file.filename}: {column[0].name}: nothing says which unit the positions have; give it as "
                "positions.unit"
            )
        return unit.metres


def _values(column: tuple[h5py.Dataset, int | None], start: int, stop: int) -> npt.NDArray[np.float64]:
    dataset, number = column
    rows = dataset[start:stop] if number is None else dataset[start:stop, number]
    return np.asarray(rows, dtype=np.float64)
