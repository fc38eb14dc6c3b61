"""What the regimes did in a run: when they changed and why, and what phase retrieval took and spared."""

from __future__ import annotations

from statistics import median
from typing import Any

from ptychoflow.streaming.events import (
    AnyEvent,
    GroundTruthReady,
    GroundTruthSkipped,
    Regime,
    RegimeChanged,
    RegimeRules,
)


class RegimeHistory:
    """Takes in a run's events; a repeated one does no harm."""

    def __init__(self) -> None:
        self._rules: RegimeRules | None = None
        self._changes: list[RegimeChanged] = []
        self._seconds: dict[int, float] = {}
        self._skipped: set[int] = set()

    @property
    def _regime(self) -> Regime:
        return self._changes[-1].regime if self._changes else Regime.LEARNING

    def add(self, event: AnyEvent) -> None:
        """Take in one event; kinds that say nothing of regimes are ignored."""
        match event:
            case RegimeRules():
                self._rules = event
            case RegimeChanged(regime=regime) if regime is not self._regime:
                self._changes.append(event)
            case GroundTruthReady(perspective=perspective, seconds=seconds):
                self._seconds[perspective] = seconds
            case GroundTruthSkipped(perspective):
                self._skipped.add(perspective)

    def summary(self) -> dict[str, Any]:
        """Return the section `regime` of the summary.

        The seconds saved are those of the perspectives without ground truth, each at the median of those with.
        """
        typical_s = median(self._seconds.values()) if self._seconds else 0.0
        return {
            "name": str(self._regime),
            "switches": len(self._changes),
            "ground_truth_seconds": sum(self._seconds.values()),
            "ground_truth_seconds_saved": typical_s * len(self._skipped),
            "perspectives_skipped": sorted(self._skipped),
            "thresholds": {"psnr_db": self._rules.psnr_db, "ssim": self._rules.ssim} if self._rules else None,
            "changes": [
                {"regime": str(change.regime), "perspective": change.perspective, "reason": change.reason}
                for change in self._changes
            ],
        }
