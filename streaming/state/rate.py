"""Mean rates of cumulative counts."""

from __future__ import annotations


class Rate:
    """Mean rate of a cumulative count, from its first report to the report in which it last rose."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None
        self._last: tuple[float, int] = (0.0, 0)

    def add(self, time_s: float, count: int) -> None:
        """Take in a report."""
        if self._first is None:
            self._first = self._last = (time_s, count)
        elif count > self._last[1]:
            self._last = (time_s, count)

    def per_s(self, *, otherwise: float | None) -> float | None:
        """Return the rate, or `otherwise` where fewer than two reports differ."""
        if self._first is None or self._last[0] <= self._first[0]:
            return otherwise
        return (self._last[1] - self._first[1]) / (self._last[0] - self._first[0])
