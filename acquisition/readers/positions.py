"""Positions as a `PositionsMap` describes them: in the scan's file or beside it."""

from __future__ import annotations

import math
from dataclasses import replace

import h5py
import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.readers.contents import Positions
from ptychoflow.acquisition.readers.dataset_map import IndexMap, PositionsMap
from ptychoflow.acquisition.readers.elsewhere import another_file, hdf5_of
from ptychoflow.acquisition.readers.hdf5 import location, read_numbers, require_dataset
from ptychoflow.acquisition.readers.quantities import unit_of
from ptychoflow.acquisition.readers.reader import ScanFiles
from ptychoflow.acquisition.readers.tables import Table, read_table
from ptychoflow.acquisition.readers.units import PixelUnit, Quantity, Unit, scale
from ptychoflow.streaming.errors import UserError

Numbers = npt.NDArray[np.float64]
FrameNumbers = npt.NDArray[np.int64] | None
WHAT = "positions"


def read_positions(files: ScanFiles, positions: PositionsMap) -> Positions:
    """Return the positions. Raises `UserError` for what is missing, has the wrong shape, or has no unit."""
    if positions.path_y is not None and positions.path_x is not None:
        yx, unit, rows = _from_two_datasets(files, positions)
    else:
        yx, unit, rows = _from_table(files, positions)
    unit = positions.unit or unit
    if unit is None:
        raise UserError(
            f'{files.path}: nothing says which unit the positions have; give it as unit = "um" in [positions] of the '
            "dataset map, or with --set source.positions.unit=um"
        )
    factor = scale(unit) * np.array([positions.sign_y, positions.sign_x])
    return Positions(yx * factor, in_pixels=isinstance(unit, PixelUnit), frames=rows)


def as_seen(found: Positions, said: PositionsMap, angle_deg: float | None, *, where: str, section: str) -> Positions:
    """Return positions as the beam sees them: x times the angle's cosine, where the map asks for that.

    Raises:
        UserError: the file says no angle; names the setting that asks for one, which is in `section`.
    """
    if not said.foreshortened_x:
        return found
    if angle_deg is None or not math.isfinite(angle_deg):
        raise UserError(
            f"{where}: positions are shortened by the rotation angle, which the file does not say; "
            f"say that they are not with --set {section}.foreshortened_x=false"
        )
    return replace(found, values=found.values * [1.0, math.cos(math.radians(angle_deg))])


def mean_by_number(
    values: Numbers, numbers: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the different numbers in order, and the means (n, 2) of the rows of `values` with each of them."""
    different, place = np.unique(numbers, return_inverse=True)
    rows = np.bincount(place)
    return different, np.stack([np.bincount(place, values[:, axis]) / rows for axis in (0, 1)], axis=1)


def _from_two_datasets(files: ScanFiles, positions: PositionsMap) -> tuple[Numbers, Unit | None, FrameNumbers]:
    file = hdf5_of(files, positions.file)
    names = (positions.path_y, positions.path_x)
    datasets = [require_dataset(file, [str(name)], what=f"{WHAT} where the dataset map says") for name in names]
    y, x = (read_numbers(dataset, what=WHAT).reshape(-1) for dataset in datasets)
    if len(y) != len(x):
        raise UserError(f"{location(datasets[0])}: there are {len(y)} y positions but {len(x)} x positions")
    units = [unit_of(dataset, Quantity.POSITION, what=WHAT) for dataset in datasets]
    if units[0] != units[1] and positions.unit is None:
        raise UserError(f"{location(datasets[0])}: y and x positions have different units, {units[0]} and {units[1]}")
    index = None
    if positions.index is not None:
        if positions.index.path is None:
            raise UserError(f"{file.filename}: positions in two datasets have no columns; give the index as path")
        index = _frame_numbers(_dataset_of_index(file, positions.index.path), positions.index, rows=len(y))
    return np.stack([y, x], axis=1), units[0], index


def _from_table(files: ScanFiles, positions: PositionsMap) -> tuple[Numbers, Unit | None, FrameNumbers]:
    path = another_file(files, positions.file) if positions.file is not None else files.path
    unit: Unit | None = None
    file: h5py.File | None = None
    if positions.file is None or h5py.is_hdf5(path):
        file = hdf5_of(files, positions.file)
        if positions.path is None:
            raise UserError(f"{path}: say which dataset holds the positions, as path (or path_y and path_x)")
        dataset = require_dataset(file, [positions.path], what=f"{WHAT} where the dataset map says")
        unit = unit_of(dataset, Quantity.POSITION, what=WHAT)
        table = Table(location(dataset), _as_rows(dataset, wide=positions.column_y is not None))
    else:
        table = read_table(path, positions.path)
    if positions.column_y is not None and positions.column_x is not None:
        yx = np.stack([table.column(positions.column_y), table.column(positions.column_x)], axis=1)
    elif table.values.shape[1] in {2, 3}:
        yx = table.values[:, :2] if positions.columns == "yx" else table.values[:, 1::-1]
    else:
        raise UserError(
            f"{table.where}: positions must have two or three columns, not shape {table.values.shape}; "
            "say which ones with column_y and column_x"
        )
    return yx, unit, _index_of_table(file, table, positions)


def _as_rows(dataset: h5py.Dataset, *, wide: bool) -> Numbers:
    """Return a dataset with a row for each position; without chosen columns it may be the transpose of that."""
    values = read_numbers(dataset, what=WHAT)
    if values.ndim == 3 and values.shape[-1] in {2, 3}:
        values = values.reshape(-1, values.shape[-1])
    if values.ndim == 2 and values.shape[1] not in {2, 3} and not wide:
        values = values.T
    if values.ndim != 2 or (values.shape[1] not in {2, 3} and not wide):
        raise UserError(f"{location(dataset)}: positions must have two or three columns, not shape {dataset.shape}")
    return values


def _index_of_table(file: h5py.File | None, table: Table, positions: PositionsMap) -> FrameNumbers:
    index = positions.index
    if index is None:
        return None
    if index.column is not None:
        return _frame_numbers(table.column(index.column), index, rows=len(table.values))
    if file is None or index.path is None:
        raise UserError(f"{table.where}: give the index of the positions as a column of the table")
    return _frame_numbers(_dataset_of_index(file, index.path), index, rows=len(table.values))


def _dataset_of_index(file: h5py.File, path: str) -> Numbers:
    dataset = require_dataset(file, [path], what="index of the positions where the dataset map says")
    return read_numbers(dataset, what="index of the positions").reshape(-1)


def _frame_numbers(values: Numbers, index: IndexMap, *, rows: int) -> npt.NDArray[np.int64]:
    if len(values) != rows:
        raise UserError(f"the index of the positions has {len(values)} rows but the positions have {rows}")
    if not np.isfinite(values).all() or np.abs(values).max(initial=0) > 2**53 or (values != np.round(values)).any():
        raise UserError("the index of the positions must be whole numbers; check which column or dataset it is")
    return values.astype(np.int64) - index.origin
