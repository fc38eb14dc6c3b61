"""What the acquisition says of a scan: what is scanned, where its frames went, ground truth and regimes."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from ptychoflow.streaming.events.base import Event, Whole
from ptychoflow.streaming.messages import GroundTruthSource


class Regime(StrEnum):
    """Which perspectives get ground truth."""

    LEARNING = "learning"
    """All of them."""
    MONITORING = "monitoring"
    """A few, to see that the network is still good enough."""


class Unlabelled(StrEnum):
    """Why a frame that could have become a sample has no ground truth."""

    RETRIEVAL_FAILED = "retrieval_failed"
    WORKER_LOST = "worker_lost"
    """Whatever worked on its perspective was killed; a resumed run tries again."""
    MONITORING = "monitoring"
    """The run was monitoring, which spared its perspective the phase retrieval."""
    SPARED = "spared"
    """It was learning, with ground truth for some perspectives alone."""
    NO_TRAINER = "no_trainer"
    STOPPED = "stopped"
    """The run ended before."""


class Unplaced(StrEnum):
    """Why a frame that a detector sent has no place in a perspective."""

    NO_POSITION = "no_position"
    """No position came for it in time."""
    LATE = "late"
    """It came when its series was over."""
    SERIES_UNUSABLE = "series_unusable"
    """Its series showed too little to begin with: no counts, or hardly any frames with a position."""


class Missing(StrEnum):
    """How it is known that a frame should have come."""

    GAP = "gap"
    """Frames with higher trigger numbers came."""
    POSITION_ONLY = "position_only"
    """Its position came."""


class ScanInfo(Event, tag="scan_info", frozen=True):
    """What is being scanned; sent once by the acquisition."""

    source: str
    perspectives: Whole | None
    frames_expected: Whole | None
    frame_shape_px: tuple[Whole, Whole]
    target_shape_px: tuple[Whole, Whole]
    object_pixel_size_m: tuple[float, float]
    energy_eV: float
    ground_truth: GroundTruthSource
    notes: list[str]
    """What was estimated or assumed, in words (a missing probe, say)."""


class PerspectiveStarted(Event, tag="perspective_started", frozen=True):
    """A perspective is about to be scanned.

    Arrays: `positions_px` float32 (frames, 2) as (y, x), in the order of acquisition, as far as they are known;
    `probe` complex64 (mode, y, x), if the source has one.
    """

    perspective: Whole
    angle_deg: float


class PositionsTaken(Event, tag="positions_taken", frozen=True):
    """More positions of a perspective that did not know them before.

    Arrays: `positions_px` float32 (n, 2) as (y, x), in the order of acquisition; `indices` int32 (n,) of their frames.
    """

    perspective: Whole


class FrameTaken(Event, tag="frame_taken", frozen=True):
    """The newest frame, a few times a second at most.

    Array: `diffraction` float32 (y, x), zero frequency in the middle, summed over `binned_px` × `binned_px` pixels so
    that a large detector's frame stays small.
    """

    perspective: Whole
    index: Whole
    binned_px: Whole
    most_frames: Whole | None = None
    """Of its perspective, as far as the source has said: an upper bound."""


class AcquisitionCounts(Event, tag="acquisition_counts", frozen=True):
    """The acquisition's side of the frame ledger."""

    acquired: Whole
    published: Whole
    """Frames sent to the edge."""
    samples: Whole
    """Frames sent to the trainer with ground truth (training and validation)."""
    void: Whole
    held_out: Whole
    excluded: Whole
    unlabelled: Whole
    rejected: Whole
    resent_batches: Whole
    spooled_bytes: Whole
    unlabelled_because: dict[Unlabelled, Whole] = msgspec.field(default_factory=dict)
    """The unlabelled frames by their reason."""
    unplaced_because: dict[Unplaced, Whole] = msgspec.field(default_factory=dict)
    """Frames of a detector without a place in a perspective, which were acquired and not published."""
    missing_because: dict[Missing, Whole] = msgspec.field(default_factory=dict)
    """Frames that never came, and so were not acquired."""
    final: bool = False
    """The part has ended, and counts no more."""


class GroundTruthReady(Event, tag="ground_truth_ready", frozen=True):
    """One perspective's ground truth is available."""

    perspective: Whole
    source: GroundTruthSource
    seconds: float
    frames: Whole
    epochs: Whole = 0
    """Of phase retrieval."""


class GroundTruthSkipped(Event, tag="ground_truth_skipped", frozen=True):
    """One perspective gets no ground truth, as the regime has it."""

    perspective: Whole


class RegimeRules(Event, tag="regime_rules", frozen=True):
    """What the phase of a first pass must reach to be good enough; sent once if the regime changes by itself."""

    psnr_db: float | None
    ssim: float | None


class RegimeChanged(Event, tag="regime_changed", frozen=True):
    """From this perspective on, another regime holds."""

    regime: Regime
    perspective: Whole
    reason: str
    """Why, in words for a person."""
    acquired: Whole = 0
    """Frames of the run that had been acquired by then."""
