"""Telemetry events: what every part reports, a module for each part that speaks.

The page, the ledger, `summary.json` and the report are made from these alone. Counters are cumulative since the start
of the run, so a lost or repeated event does no harm. Which part speaks stands in the envelope, `Telemetry`.
"""

from __future__ import annotations

import msgspec

from ptychoflow.streaming.events.acquisition import (
    AcquisitionCounts,
    FrameTaken,
    GroundTruthReady,
    GroundTruthSkipped,
    Missing,
    PerspectiveStarted,
    PositionsTaken,
    Regime,
    RegimeChanged,
    RegimeRules,
    ScanInfo,
    Unlabelled,
    Unplaced,
)
from ptychoflow.streaming.events.base import WATCHING, Event, Part, PartState, PartStatus, WarningRaised, Whole
from ptychoflow.streaming.events.classification import ClassificationInfo, TaskAccuracies, TaskScores, chance
from ptychoflow.streaming.events.edge import (
    Channels,
    EdgeCounts,
    HeldOutScores,
    MosaicArea,
    MosaicImage,
    MosaicKind,
    PerspectiveScores,
    Quality,
    ResidualCalibrated,
    ResidualMapped,
    ResidualScores,
    WeightsApplied,
    WeightsKept,
    WeightsRejected,
)
from ptychoflow.streaming.events.trainer import (
    BufferReport,
    RankCounts,
    StepBreakdown,
    TrainingResumed,
    TrainingStep,
    ValidationLoss,
    WeightsPublished,
)
from ptychoflow.streaming.events.workflow import PartObserved
from ptychoflow.streaming.messages import SCHEMA_VERSION

AnyEvent = (
    PartStatus
    | PartObserved
    | WarningRaised
    | ScanInfo
    | PerspectiveStarted
    | PositionsTaken
    | FrameTaken
    | AcquisitionCounts
    | GroundTruthReady
    | GroundTruthSkipped
    | RankCounts
    | TrainingStep
    | TrainingResumed
    | StepBreakdown
    | BufferReport
    | ValidationLoss
    | RegimeRules
    | RegimeChanged
    | WeightsPublished
    | WeightsApplied
    | WeightsKept
    | WeightsRejected
    | EdgeCounts
    | PerspectiveScores
    | HeldOutScores
    | ResidualScores
    | ResidualCalibrated
    | ResidualMapped
    | MosaicImage
    | MosaicArea
    | ClassificationInfo
    | TaskScores
    | TaskAccuracies
)


class Telemetry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The envelope of one event, on the wire and in `telemetry.jsonl`."""

    time_s: float
    """Clock of the sender's host, seconds since 1970."""
    part: Part
    """Who speaks."""
    rank: Whole
    """Which process of the part: a rank of the trainer; 0 of the others."""
    event: AnyEvent
    schema: int = SCHEMA_VERSION
    """Version of messages and events."""


__all__ = [
    "WATCHING",
    "AcquisitionCounts",
    "AnyEvent",
    "BufferReport",
    "Channels",
    "ClassificationInfo",
    "EdgeCounts",
    "Event",
    "FrameTaken",
    "GroundTruthReady",
    "GroundTruthSkipped",
    "HeldOutScores",
    "Missing",
    "MosaicArea",
    "MosaicImage",
    "MosaicKind",
    "Part",
    "PartObserved",
    "PartState",
    "PartStatus",
    "PerspectiveScores",
    "PerspectiveStarted",
    "PositionsTaken",
    "Quality",
    "RankCounts",
    "Regime",
    "RegimeChanged",
    "RegimeRules",
    "ResidualCalibrated",
    "ResidualMapped",
    "ResidualScores",
    "ScanInfo",
    "StepBreakdown",
    "TaskAccuracies",
    "TaskScores",
    "Telemetry",
    "TrainingResumed",
    "TrainingStep",
    "Unlabelled",
    "Unplaced",
    "ValidationLoss",
    "WarningRaised",
    "WeightsApplied",
    "WeightsKept",
    "WeightsPublished",
    "WeightsRejected",
    "Whole",
    "chance",
]
