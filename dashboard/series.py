"""Curves of bounded size: a night's history costs no more than an hour's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict


@dataclass(frozen=True)
class SeriesCursor:
    """How much of a series a viewer has."""

    revision: int = -1
    final_points: int = 0


class SeriesPatch(BaseModel):
    """Brings a viewer's copy of a series up to date: cut it to `start` points, then append the columns."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    start: int
    """Points of the viewer's copy that stay."""
    columns: dict[str, list[float]]
    """Equally long columns; `time_s` is seconds since 1970."""


class Series:
    """Columns over time. Each point is the mean of `stride` values; when `capacity` points are full, neighbours merge.

    Args:
        columns: names of the values beside `time_s`.
        capacity: most points kept, even.
    """

    def __init__(self, columns: Sequence[str], *, capacity: int) -> None:
        self._columns: dict[str, list[float]] = {name: [] for name in ("time_s", *columns)}
        self._capacity = capacity - capacity % 2
        self._stride = 1
        self._sums = dict.fromkeys(self._columns, 0.0)
        self._pending = 0
        self._revision = 0

    def append(self, time_s: float, values: Mapping[str, float]) -> None:
        """Take in one value per column."""
        for name, value in {"time_s": time_s, **values}.items():
            self._sums[name] += value
        self._pending += 1
        if self._pending == self._stride:
            self._finish_point()

    def cursor(self) -> SeriesCursor:
        """Return the cursor of a viewer that has everything up to now."""
        return SeriesCursor(self._revision, self._final_points)

    def since(self, cursor: SeriesCursor) -> SeriesPatch:
        """Return what a viewer at `cursor` lacks; the point still being averaged is always sent again."""
        start = cursor.final_points if cursor.revision == self._revision else 0
        columns = {name: values[start:] for name, values in self._columns.items()}
        if self._pending:
            for name, total in self._sums.items():
                columns[name].append(total / self._pending)
        return SeriesPatch(start=start, columns=columns)

    @property
    def _final_points(self) -> int:
        return len(self._columns["time_s"])

    def _finish_point(self) -> None:
        for name, values in self._columns.items():
            values.append(self._sums[name] / self._pending)
        self._sums = dict.fromkeys(self._columns, 0.0)
        self._pending = 0
        if self._final_points == self._capacity:
            self._merge_neighbours()

    def _merge_neighbours(self) -> None:
        for name, values in self._columns.items():
            self._columns[name] = [(left + right) / 2 for left, right in zip(values[::2], values[1::2], strict=True)]
        self._stride *= 2
        self._revision += 1
