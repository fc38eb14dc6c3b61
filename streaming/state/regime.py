"""What the regimes did in a run: when they changed and why, and what phase retrieval took and spared."""

from __future__ import annotations

from collections import deque
from statistics import median

import msgspec

from ptychoflow.streaming.events import (
    GroundTruthReady,
    GroundTruthSkipped,
    Regime,
    RegimeChanged,
    RegimeRules,
    Telemetry,
)
from ptychoflow.streaming.state.rows import PERSPECTIVES_KEPT, shortened

CHANGES_KEPT = 1000


class RegimeHistory:
    """Follows the regimes of one run; a repeated event does no harm."""

    def __init__(self) -> None:
        self.rules: RegimeRules | None = None
        self.changes: deque[tuple[float, RegimeChanged]] = deque(maxlen=CHANGES_KEPT)
        """The newest changes and when they were told, oldest first."""
        self.switches = 0
        self._earlier_s = 0.0
        self._earlier = 0
        self._seconds: dict[int, float] = {}
        self._skipped: dict[int, None] = {}

    @property
    def regime(self) -> Regime:
        """The regime that holds now."""
        return self.changes[-1][1].regime if self.changes else Regime.LEARNING

    @property
    def perspectives(self) -> int:
        """Perspectives that got ground truth."""
        return self._earlier + len(self._seconds)

    @property
    def seconds(self) -> float:
        """Spent on ground truth."""
        return self._earlier_s + sum(self._seconds.values())

    @property
    def seconds_saved(self) -> float:
        """Of the perspectives without ground truth, each at the median of those with."""
        return median(self._seconds.values()) * len(self._skipped) if self._seconds else 0.0

    @property
    def skipped(self) -> list[int]:
        """Perspectives that the regime spared ground truth, in order."""
        return sorted(self._skipped)

    def apply(self, telemetry: Telemetry, *, at_s: float) -> None:
        """Take in one event; kinds that say nothing of regimes are ignored."""
        match telemetry.event:
            case RegimeRules() as rules:
                self.rules = rules
            case RegimeChanged(regime) as change if regime is not self.regime:
                self.changes.append((at_s, msgspec.structs.replace(change, reason=shortened(change.reason))))
                self.switches += 1
            case GroundTruthReady(perspective=perspective, seconds=seconds):
                self._seconds[perspective] = seconds
                if len(self._seconds) > PERSPECTIVES_KEPT:
                    self._earlier_s += self._seconds.pop(min(self._seconds))
                    self._earlier += 1
            case GroundTruthSkipped(perspective):
                self._skipped[perspective] = None
                if len(self._skipped) > PERSPECTIVES_KEPT:
                    del self._skipped[min(self._skipped)]
            case _:
                pass
