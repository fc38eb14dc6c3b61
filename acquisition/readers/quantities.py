"""Numbers with units, as HDF5 files hold them."""

from __future__ import annotations

import h5py
import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.readers.hdf5 import location, read_numbers
from ptychoflow.acquisition.readers.units import Quantity, Unit, as_text, parse_unit, scale
from ptychoflow.streaming.errors import UserError

UNIT_ATTRIBUTES = ("units", "unit")
SAME = 1e-4
"""Relative spread within which a quantity that was noted at every frame counts as one."""
SAME_ANGLE_DEG = 0.01
"""Likewise of a rotation angle, whose zero is anywhere: what an encoder reads while the axis stands still."""


def unit_of(dataset: h5py.Dataset, quantity: Quantity, *, what: str) -> Unit | None:
    """Return the unit that `dataset` states, None if it states none.

    Raises:
        UserError: the unit is not one of the quantity.
    """
    for name in UNIT_ATTRIBUTES:
        text = as_text(dataset.attrs[name]) if name in dataset.attrs else ""
        if text:
            return known_unit(text, quantity, what=what, where=location(dataset))
    return None


def known_unit(text: str, quantity: Quantity, *, what: str, where: str) -> Unit:
    """Return the unit that `text` means; raise `UserError` when it is not one of the quantity."""
    unit = parse_unit(text, quantity)
    if unit is None:
        raise UserError(
            f"{where}: {text!r} is not known as the unit of the {what}; one of {', '.join(quantity.units)} is, "
            "or give the value by a setting ([source.geometry], [source.positions])"
        )
    return unit


def read_quantity(
    dataset: h5py.Dataset, quantity: Quantity, *, default: Unit, what: str, unit: Unit | None = None
) -> float:
    """Return one number in metres, electronvolts or degrees.

    `default` is the unit where the file states none, `unit` counts whatever the file states.

    A number that was noted at every frame counts if it stays the same. Raises `UserError` if it varies.
    """
    unit = unit or unit_of(dataset, quantity, what=what) or default
    return scale(unit) * one_number(
        read_numbers(dataset, what=what), what=what, where=location(dataset), spread=spread_of(quantity, unit)
    )


def spread_of(quantity: Quantity, unit: Unit) -> float:
    """Return how far values of a quantity in `unit` may lie apart and still count as one, beside `SAME`."""
    return SAME_ANGLE_DEG / scale(unit) if quantity is Quantity.ANGLE else 0.0


def one_number(values: npt.NDArray[np.float64], *, what: str, where: str, spread: float = 0.0) -> float:
    """Return the number that all `values` are, `spread` apart at most; not finite if any of them is not.

    Raises:
        UserError: they vary.
    """
    if values.size == 0:
        raise UserError(f"{where}: the {what} must be one number, but the dataset is empty")
    broken = ~np.isfinite(values)
    if broken.any():
        return float(values[broken].reshape(-1)[0])
    middle = float(np.median(values))
    if np.ptp(values) > max(SAME * abs(middle), spread):
        raise UserError(
            f"{where}: the {what} must be one number, but it varies from {values.min():g} to {values.max():g} over "
            f"{values.size} values; scans in which it changes cannot be read: split it into a file for each value"
        )
    return middle
