"""Curves of bounded size: a night's history costs no more than an hour's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from ptychoflow.streaming.state.rows import is_figure


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

    Values that are no figures (not finite, say) are left out of the means; a point that has no other is NaN.

    Args:
        columns: names of the values beside `time_s`.
        capacity: most points kept, even.
    """

    def __init__(self, columns: Sequence[str], *, capacity: int) -> None:
        self.names = ("time_s", *columns)
        self._points: list[_Point] = []
        self._capacity = capacity - capacity % 2
        self._stride = 1
        self._revision = 0
        self._start_point()

    def append(self, time_s: float, values: Mapping[str, Any], *, source: Any = None) -> None:
        """Take in one value per column.

        Args:
            time_s: when, seconds since 1970.
            values: by column; None is not known, and what is no column is ignored.
            source: what the values are from; `undo` judges and `newest` returns it.
        """
        known = {"time_s": time_s, **values}
        for column, name in enumerate(self.names):
            if known[name] is not None and is_figure(known[name]):
                self._sums[column] += known[name]
                self._counts[column] += 1
        self._pending += 1
        self._source = source
        if self._pending == self._stride:
            self._points.append(self._pending_point())
            self._start_point()
            if len(self._points) == self._capacity:
                pairs = zip(self._points[::2], self._points[1::2], strict=True)
                self._points = [_merged(left, right) for left, right in pairs]
                self._stride *= 2
                self._revision += 1

    def undo(self, is_void: Callable[[Any], bool]) -> None:
        """Take back every point whose newest source is void."""
        kept = [point for point in self._points if not is_void(point.source)]
        if len(kept) < len(self._points):
            self._points = kept
            self._revision += 1
        if self._pending and is_void(self._source):
            self._start_point()

    @property
    def newest(self) -> Any:
        """The newest source, None without one."""
        if self._pending:
            return self._source
        return self._points[-1].source if self._points else None

    def columns(self) -> dict[str, list[float]]:
        """Return all points by column."""
        return self.since(SeriesCursor()).columns

    def mean(self, name: str) -> float | None:
        """Return the mean of a column over all values taken in, as far as they are finite; None without any."""
        column = self.names.index(name)
        weighted = [(point.values[column], self._stride) for point in self._points]
        if self._pending:
            weighted.append((self._pending_point().values[column], self._pending))
        known = [(value, weight) for value, weight in weighted if math.isfinite(value)]
        total = sum(weight for _, weight in known)
        return math.fsum(value * (weight / total) for value, weight in known) if known else None

    def cursor(self) -> SeriesCursor:
        """Return the cursor of a viewer that has everything up to now."""
        return SeriesCursor(self._revision, len(self._points))

    def since(self, cursor: SeriesCursor) -> SeriesPatch:
        """Return what a viewer at `cursor` lacks; the point still being averaged is always sent again."""
        start = cursor.final_points if cursor.revision == self._revision else 0
        shown = self._points[start:] + ([self._pending_point()] if self._pending else [])
        columns = {name: [point.values[column] for point in shown] for column, name in enumerate(self.names)}
        return SeriesPatch(start=start, columns=columns)

    def _start_point(self) -> None:
        self._sums, self._counts = [0.0] * len(self.names), [0] * len(self.names)
        self._pending, self._source = 0, None

    def _pending_point(self) -> _Point:
        means = [total / count if count else math.nan for total, count in zip(self._sums, self._counts, strict=True)]
        return _Point(means, self._source)


@dataclass(frozen=True)
class _Point:
    values: list[float]
    source: Any
    """The newest that contributed."""


def _merged(left: _Point, right: _Point) -> _Point:
    means = [_mean(pair) for pair in zip(left.values, right.values, strict=True)]
    return _Point(means, right.source)


def _mean(values: tuple[float, float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return sum(value / len(known) for value in known) if known else math.nan
