"""How a run of a scan began: when there was an image, when ground truth, and how near the two were then."""

from __future__ import annotations

from ptychoflow.streaming.events import (
    EdgeCounts,
    GroundTruthReady,
    MosaicKind,
    PerspectiveScores,
    Quality,
    Telemetry,
    WeightsPublished,
)


class Beginning:
    """Notes the first of each; times are those of the events."""

    def __init__(self) -> None:
        self.imaged_s: float | None = None
        self.ground_truth_s: float | None = None
        self.quality: Quality | None = None
        """Of the first image that had a reference, if no weights had part in it that had learnt from ground truth."""
        self.constant: Quality | None = None
        """Of predicting the same everywhere, likewise."""
        self._untaught: set[int] = set()
        """Versions of the weights that had learnt from no ground truth."""

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
            case GroundTruthReady() if self.ground_truth_s is None:
                self.ground_truth_s = at_s
            case WeightsPublished(version=version, step=0):
                self._untaught.add(version)
            case PerspectiveScores(kind=MosaicKind.REFRESHED) as scores if (
                self.quality is None and self._untaught.issuperset(scores.model_versions)
            ):
                self.quality, self.constant = scores.quality, scores.constant
            case _:
                pass
