from __future__ import annotations

import numpy as np
import pytest

from ptychoflow.streaming.finite import finite_rows


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_it_says_of_all_bit_patterns_what_numpy_says(dtype: str) -> None:
    size = np.dtype(dtype).itemsize
    random = np.random.default_rng(size)
    rows = random.integers(0, 256, (400, 2, 3, size), np.uint8).view(dtype)[..., 0]
    special = [np.inf, -np.inf, np.nan, -np.nan, np.finfo(dtype).max, np.finfo(dtype).min, 0.0, -0.0]
    special += [np.finfo(dtype).smallest_subnormal, -np.finfo(dtype).smallest_subnormal]
    alone = np.array(special, dtype).reshape(-1, 1, 1)
    beside = np.ones((len(special), 2, 3), dtype)
    beside[:, 1, 2] = special
    below = -beside
    for array in (rows, alone, beside, below):
        with np.errstate(invalid="ignore"):
            np.testing.assert_array_equal(finite_rows(array), np.isfinite(array).all(axis=(1, 2)), strict=True)


def test_every_half_precision_number() -> None:
    array = np.arange(1 << 16, dtype=np.uint16).view(np.float16)[:, None]
    np.testing.assert_array_equal(finite_rows(array), np.isfinite(array[:, 0]))


def test_integers_are_finite_and_so_is_nothing() -> None:
    assert finite_rows(np.full((2, 3), -1, np.int32)).tolist() == [True, True]
    assert finite_rows(np.zeros((2, 0, 3), np.float32)).tolist() == [True, True]
    assert finite_rows(np.zeros((0, 3, 3), np.float16)).shape == (0,)
