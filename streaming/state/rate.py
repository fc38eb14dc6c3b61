"""Mean rates of cumulative counts."""

from __future__ import annotations

SILENCE_S = 60.0
"""Who has not reported for so long was not at work: between two parts of a run that was resumed lies a night."""


class Rate:
    """Mean rate of a cumulative count, from its first report to the report in which it last rose, without silences."""

    def __init__(self) -> None:
        self._newest_s: float | None = None
        self._most = 0
        self._counted, self._during_s = 0, 0.0
        self._since_rise_s = 0.0

    def add(self, time_s: float, count: int) -> None:
        """Take in a report."""
        if self._newest_s is not None and 0 <= time_s - self._newest_s <= SILENCE_S:
            self._since_rise_s += time_s - self._newest_s
            if count > self._most:
                self._counted += count - self._most
                self._during_s += self._since_rise_s
                self._since_rise_s = 0.0
        else:
            self._since_rise_s = 0.0
        self._newest_s, self._most = time_s, max(count, self._most)

    def per_s(self, *, otherwise: float | None) -> float | None:
        """Return the rate, or `otherwise` where fewer than two reports differ."""
        return self._counted / self._during_s if self._during_s > 0 else otherwise
