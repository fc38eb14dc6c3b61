"""How a run of a scan began: when there was an image, when ground truth, and how near the two were then."""

from __future__ import annotations

from ptychoflow.streaming.events import (
    EdgeCounts,
    GroundTruthReady,
    MosaicKind,
    PerspectiveScores,
    Quality,
    Telemetry,
)


class Beginning:
    """Notes the first of each; times are those of the events."""

    def __init__(self) -> None:
        self.imaged_s: float | None = None
        self.ground_truth_s: float | None = None
        self.quality: Quality | None = None
        """Of the image that was there when its reference came, if one was."""
        self.constant: Quality | None = None
        """Of predicting the same everywhere, likewise."""
        self._perspective: int | None = None

    @property
    def lead_s(self) -> float | None:
        """How long before the first ground truth there was an image; None if it was not before."""
        if self.imaged_s is None or self.ground_truth_s is None or self.imaged_s >= self.ground_truth_s:
            return None
        return self.ground_truth_s - self.imaged_s

    def apply(self, telemetry: Telemetry, *, at_s: float) -> None:
        """Take in one event; only the first of a kind says anything."""
        match telemetry.event:
            case EdgeCounts(inferred=inferred) if inferred and self.imaged_s is None:
                self.imaged_s = at_s
            case GroundTruthReady(perspective=perspective) if self.ground_truth_s is None:
                self.ground_truth_s, self._perspective = at_s, perspective
            case PerspectiveScores(perspective=perspective, kind=MosaicKind.REFRESHED) as scores if (
                self.quality is None and self.lead_s is not None and perspective == self._perspective
            ):
                self.quality, self.constant = scores.quality, scores.constant
            case _:
                pass
