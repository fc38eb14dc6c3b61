"""The probe that phase retrieval starts from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.propagation import propagate

ComplexStack = npt.NDArray[np.complex64]

FIRST_EXTRA_MODE_POWER = 0.05


def scale_to_frames(
    probe: ComplexStack, frames: npt.NDArray[np.generic], mask: npt.NDArray[np.bool_] | None
) -> ComplexStack:
    """Return `probe` (mode, y, x) with the mean energy of `frames` (n, y, x) over the pixels that are not masked."""
    valid = np.ones(frames.shape[1:], bool) if mask is None else ~mask
    expected = np.sum(np.abs(propagate(probe)) ** 2, axis=0)[valid].sum()
    measured = frames.mean(axis=0, dtype=np.float64)[valid].sum()
    return np.asarray(probe * np.sqrt(measured / expected), np.complex64)


def add_modes(probe: ComplexStack, count: int) -> ComplexStack:
    """Return `probe` (mode, y, x) with at least `count` modes.

    New modes are the first one times 2-D polynomials (1, y, x, y², ...), made orthogonal, each with half the power
    of the one before.
    """
    if len(probe) >= count:
        return probe
    first = probe[0].astype(np.complex128)
    basis = [mode.ravel().astype(np.complex128) for mode in probe]
    power = float(np.sum(np.abs(first) ** 2)) * FIRST_EXTRA_MODE_POWER
    for order_y, order_x in _polynomial_orders(2 * count):
        if len(basis) == count:
            break
        candidate = _orthogonal_to(basis, (first * _polynomial(first.shape, order_y, order_x)).ravel())
        basis.append(candidate * np.sqrt(power) / np.linalg.norm(candidate))
        power /= 2
    return np.stack(basis).reshape(count, *first.shape).astype(np.complex64)


def _polynomial_orders(count: int) -> list[tuple[int, int]]:
    orders = [(total - x, x) for total in range(1, count + 1) for x in range(total + 1)]
    return orders[:count]


def _polynomial(shape_px: tuple[int, ...], order_y: int, order_x: int) -> npt.NDArray[np.float64]:
    y, x = (np.linspace(-1.0, 1.0, length) for length in shape_px)
    return y[:, np.newaxis] ** order_y * x[np.newaxis, :] ** order_x


def _orthogonal_to(basis: list[npt.NDArray[np.complex128]], vector: npt.NDArray[np.complex128]) -> np.ndarray:
    for member in basis:
        vector = vector - member * (np.vdot(member, vector) / np.vdot(member, member))
    return vector
