"""What a detector of DECTRIS says in either protocol, read with care: fields may be missing, unset or damaged."""

from __future__ import annotations

import math

LARGEST_COUNT = 1 << 53


class SeriesShape:
    """The shape of the frames of the present series: within the header's, and that of the first frame for all."""

    def __init__(self) -> None:
        self._series: str | None = None
        self._bound: tuple[int, int] | None = None
        self._shape: tuple[int, int] | None = None

    def begin(self, series: str, bound: tuple[int, int] | None) -> None:
        """Take what a header says, if it does."""
        self._series, self._bound, self._shape = series, bound, None

    def check(self, series: str, shape_px: tuple[int, int]) -> None:
        """Make sure that a frame fits into its series, which it begins where the header was lost.

        Raises:
            ValueError: it does not.
        """
        if series != self._series:
            self.begin(series, None)
        if self._shape is None and self._bound is not None:
            if any(length > bound for length, bound in zip(shape_px, self._bound, strict=True)):
                raise ValueError(f"a frame of {shape_px} pixels is larger than its series' header says: {self._bound}")
        elif self._shape is not None and shape_px != self._shape:
            raise ValueError(f"a frame of {shape_px} pixels among frames of {self._shape}")
        self._shape = shape_px


def finite(value: object) -> float | None:
    """Return a number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < math.inf:
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def positive(value: object) -> float | None:
    """Return a number above 0, or None for anything else: detectors say 0 for what nobody has set."""
    number = finite(value)
    return number if number is not None and number > 0 else None


def positive_pair(y: object, x: object) -> tuple[float, float] | None:
    """Return two numbers above 0, or None if one is not."""
    pair = positive(y), positive(x)
    return None if pair[0] is None or pair[1] is None else (pair[0], pair[1])


def count(value: object) -> int | None:
    """Return a whole number from 0, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < LARGEST_COUNT:
        return None
    return value


def shape(y: object, x: object) -> tuple[int, int] | None:
    """Return a shape without empty axes, or None."""
    height, width = count(y), count(x)
    return (height, width) if height and width else None
