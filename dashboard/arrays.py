"""Which arrays that come with events can be shown; a stranger may have sent them."""

from __future__ import annotations

from typing import Any, TypeGuard

import numpy.typing as npt

REAL = "iuf"
"""Kinds of NumPy's dtypes."""


def is_real(array: npt.NDArray[Any] | None, *, dimensions: int) -> TypeGuard[npt.NDArray[Any]]:
    """Return whether an array is there, holds real numbers, and has so many dimensions."""
    return array is not None and array.ndim == dimensions and array.dtype.kind in REAL


def is_image(array: npt.NDArray[Any] | None) -> TypeGuard[npt.NDArray[Any]]:
    """Return whether an array is an image of at least one pixel."""
    return is_real(array, dimensions=2) and array.size > 0


def are_indices(array: npt.NDArray[Any] | None, *, frames: int) -> TypeGuard[npt.NDArray[Any]]:
    """Return whether an array holds a whole number for each of so many frames."""
    return array is not None and array.shape == (frames,) and array.dtype.kind in "iu"


def are_positions(array: npt.NDArray[Any] | None) -> TypeGuard[npt.NDArray[Any]]:
    """Return whether an array holds a pair of numbers for each frame."""
    return is_real(array, dimensions=2) and array.shape[1] == 2
