"""What users should know before trusting the result."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ptychoflow.streaming.events import Part, Telemetry, WarningRaised
from ptychoflow.streaming.state.rows import Rows, shortened

WARNINGS_KEPT = 100


@dataclass(frozen=True)
class Warned:
    """A warning; repeated ones are counted."""

    id: int
    time_s: float
    part: Part
    text: str
    count: int


class Warnings:
    """Counts the warnings of a run; those that came longest ago are let go."""

    def __init__(self) -> None:
        self.rows: Rows[tuple[Part, str], Warned] = Rows(WARNINGS_KEPT)
        self._told = 0

    def apply(self, telemetry: Telemetry, *, at_s: float, number: int) -> None:
        """Take in event `number`."""
        if not isinstance(telemetry.event, WarningRaised):
            return
        key = telemetry.part, shortened(telemetry.event.text)
        row = self.rows.get(key)
        if row is None:
            self._told += 1
            row = Warned(self._told, at_s, *key, count=0)
        self.rows.put(key, replace(row, time_s=at_s, count=row.count + 1), event=number)
