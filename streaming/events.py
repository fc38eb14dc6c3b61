"""Telemetry events: what every part reports. The dashboard, the ledger and `summary.json` are made from these alone.

Counters are cumulative since the start of the run, so a lost or repeated event does no harm.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from ptychoflow.streaming.classification_events import ClassificationInfo, TaskAccuracies, TaskScores
from ptychoflow.streaming.event_base import Event
from ptychoflow.streaming.messages import GroundTruthSource


class Part(StrEnum):
    """The parts of a run."""

    ACQUISITION = "acquisition"
    TRAINER = "trainer"
    EDGE = "edge"
    DASHBOARD = "dashboard"
    WORKFLOW = "workflow"


class PartState(StrEnum):
    """What a part is doing."""

    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    FAILED = "failed"


class Regime(StrEnum):
    """Which perspectives get ground truth."""

    LEARNING = "learning"
    """All of them."""
    MONITORING = "monitoring"
    """A few, to see that the network is still good enough."""


class Unlabelled(StrEnum):
    """Why a frame that could have become a sample has no ground truth."""

    RETRIEVAL_FAILED = "retrieval_failed"
    MONITORING = "monitoring"
    """The regime spared its perspective the phase retrieval."""
    NO_TRAINER = "no_trainer"
    STOPPED = "stopped"
    """The run ended before."""


class MosaicKind(StrEnum):
    """Which stitched image an array shows."""

    FIRST_PASS = "first_pass"
    """Every frame imaged once, on arrival, with the weights of that moment."""
    REFRESHED = "refreshed"
    """Imaged again with newer weights."""
    REFERENCE = "reference"
    """The ground truth's image."""


class Channels(msgspec.Struct, frozen=True):
    """One figure per image channel."""

    amplitude: float
    phase: float


class Quality(msgspec.Struct, frozen=True):
    """Image quality against the reference over the area that enough frames cover."""

    psnr_db: Channels
    ssim: Channels
    correlation: Channels
    """Pearson correlation of the pixels."""


class PartStatus(Event, tag="part_status", frozen=True):
    """A part changed state; `text` says why, in words for a person."""

    part: Part
    state: PartState
    text: str = ""


class WarningRaised(Event, tag="warning", frozen=True):
    """Something a user should know before trusting the result."""

    part: Part
    text: str


class ScanInfo(Event, tag="scan_info", frozen=True):
    """What is being scanned; sent once by the acquisition."""

    source: str
    perspectives: int | None
    frames_expected: int | None
    frame_shape_px: tuple[int, int]
    target_shape_px: tuple[int, int]
    object_pixel_size_m: tuple[float, float]
    energy_eV: float
    ground_truth: GroundTruthSource
    notes: list[str]
    """What was estimated or assumed, in words (a missing probe, say)."""


class PerspectiveStarted(Event, tag="perspective_started", frozen=True):
    """A perspective is about to be scanned.

    Arrays: `positions_px` float32 (frames, 2) as (y, x), in the order of acquisition; `probe` complex64 (mode, y, x),
    if the source has one.
    """

    perspective: int
    angle_deg: float


class FrameTaken(Event, tag="frame_taken", frozen=True):
    """The newest frame, a few times a second at most.

    Array: `diffraction` float32 (y, x), zero frequency in the middle, summed over `binned_px` × `binned_px` pixels so
    that a large detector's frame stays small.
    """

    perspective: int
    index: int
    binned_px: int


class AcquisitionCounts(Event, tag="acquisition_counts", frozen=True):
    """The acquisition's side of the frame ledger."""

    acquired: int
    published: int
    """Frames sent to the edge."""
    samples: int
    """Frames sent to the trainer with ground truth (training and validation)."""
    void: int
    held_out: int
    excluded: int
    unlabelled: int
    rejected: int
    resent_batches: int
    spooled_bytes: int
    unlabelled_because: dict[Unlabelled, int] = msgspec.field(default_factory=dict)
    """The unlabelled frames by their reason."""


class GroundTruthReady(Event, tag="ground_truth_ready", frozen=True):
    """One perspective's ground truth is available."""

    perspective: int
    source: GroundTruthSource
    seconds: float
    frames: int


class GroundTruthSkipped(Event, tag="ground_truth_skipped", frozen=True):
    """One perspective gets no ground truth, as the regime has it."""

    perspective: int


class RankCounts(Event, tag="rank_counts", frozen=True):
    """One trainer rank's side of the frame ledger; distinct frame ids."""

    rank: int
    trained: int
    validation: int
    duplicates: int
    rejected: int
    """Samples refused by the trainer (non-finite, wrong shape)."""
    ranks: int = 0
    """Ranks of the trainer since it was last started, 0 if unknown; what other ranks counted before is in their counts.
    """


class TrainingStep(Event, tag="training_step", frozen=True):
    """Progress of training, from rank 0, a few times a second at most."""

    step: int
    loss: float
    """What the strategy minimises, so not comparable between strategies; estimated from rank 0's samples."""
    loss_amplitude: float | None
    """None of images, like `loss_phase`."""
    loss_phase: float | None
    learning_rate: float
    stream_samples: int
    """Samples of the stream trained on so far, all ranks."""
    rehearsed_samples: int
    """Representatives trained on so far, all ranks."""
    samples_per_s: float


class TrainingResumed(Event, tag="training_resumed", frozen=True):
    """The ranks went back to a checkpoint; what was reported of later steps is void."""

    step: int
    """Steps made when it was taken."""


class StepBreakdown(Event, tag="step_breakdown", frozen=True):
    """Mean milliseconds per step since the last report on rank 0."""

    step: int
    load_ms: float
    train_ms: float
    buffer_wait_ms: float
    """For the draw begun in the step before."""
    populate_ms: float
    """Insertion into the buffer, beside the step."""
    augment_ms: float
    """Draw from the buffer, beside the step."""


class BufferReport(Event, tag="buffer_report", frozen=True):
    """The rehearsal buffer of one rank."""

    rank: int
    capacity: int
    """Total over all ranks."""
    size: int
    """Items on this rank."""
    transport: str
    hidden_fraction: float
    waited_ms: float
    background_ms: float


class ValidationLoss(Event, tag="validation_loss", frozen=True):
    """Validation loss after a perspective, over validation frames of all ranks: L1 amplitude + L1 phase; of images,
    cross-entropy."""

    after_perspective: int
    step: int
    per_perspective: dict[int, float]
    mean_over_seen: float
    constant: float
    """The loss of always predicting the mean training patch; of images, of guessing among all classes."""


class RegimeRules(Event, tag="regime_rules", frozen=True):
    """What the phase of a first pass must reach to be good enough; sent once if the regime changes by itself."""

    psnr_db: float | None
    ssim: float | None


class RegimeChanged(Event, tag="regime_changed", frozen=True):
    """From this perspective on, another regime holds."""

    regime: Regime
    perspective: int
    reason: str
    """Why, in words for a person."""


class WeightsPublished(Event, tag="weights_published", frozen=True):
    """The trainer published a version."""

    version: int
    step: int
    sha256: str
    validation_loss: float | None
    final: bool


class WeightsApplied(Event, tag="weights_applied", frozen=True):
    """An edge now infers with this version."""

    version: int


class WeightsRejected(Event, tag="weights_rejected", frozen=True):
    """An edge refused a version and goes on with the one before."""

    version: int
    reason: str


class EdgeCounts(Event, tag="edge_counts", frozen=True):
    """The edge's side of the frame ledger, with rates."""

    inferred: int
    """Distinct frames imaged on arrival."""
    refreshed: int
    """Times that a frame was imaged again with newer weights."""
    duplicates: int
    frames_per_s: float
    frame_to_image_p50_ms: float
    """Of recent frames that were imaged in turn."""
    frame_to_image_p99_ms: float
    refused: int = 0
    """Frames that cannot be imaged: of another size than the scan's, without a finite position."""
    unstitched: int = 0
    """Frames imaged and left out of the stitched image: no finite patch, or a position where no scan reaches."""
    put_off: int = 0
    """Frames that were imaged later than in turn, or will be, because they came too fast."""
    waiting: int = 0
    """Frames received and not yet imaged."""


class PerspectiveScores(Event, tag="perspective_scores", frozen=True):
    """Quality of one perspective's stitched image."""

    perspective: int
    angle_deg: float
    frames: int
    kind: MosaicKind
    quality: Quality
    constant: Quality
    """Of stitching the mean training patch everywhere."""
    model_versions: list[int]
    """Versions that contributed to the image, oldest first."""


class HeldOutScores(Event, tag="held_out_scores", frozen=True):
    """Quality over held-out frames alone: a region, or the last perspective."""

    perspective: int
    frames: int
    quality: Quality
    constant: Quality
    model_version: int


class MosaicImage(Event, tag="mosaic_image", frozen=True):
    """A stitched image. Arrays: `amplitude`, `phase` float32 (y, x), NaN where nothing covers the pixel."""

    perspective: int
    kind: MosaicKind
    model_version: int
    origin_px: tuple[float, float]
    pixel_size_m: tuple[float, float]
    revision: int = 0
    """Counts this image and the areas sent of it."""


class MosaicArea(Event, tag="mosaic_area", frozen=True):
    """What changed of a stitched image since the event of the revision before; without that, wait for all of it.

    Arrays: `amplitude`, `phase` float32 (y, x), as in `MosaicImage`, of the rectangle that begins at `origin_px`.
    """

    perspective: int
    kind: MosaicKind
    model_version: int
    origin_px: tuple[int, int]
    image_origin_px: tuple[int, int]
    """Of the whole image, which may have grown."""
    image_shape_px: tuple[int, int]
    revision: int


AnyEvent = (
    PartStatus
    | WarningRaised
    | ScanInfo
    | PerspectiveStarted
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
    | WeightsRejected
    | EdgeCounts
    | PerspectiveScores
    | HeldOutScores
    | MosaicImage
    | MosaicArea
    | ClassificationInfo
    | TaskScores
    | TaskAccuracies
)


class Telemetry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One event on the wire and one line of `telemetry.jsonl`."""

    time_s: float
    sender: str
    """Part, host and process, for people."""
    event: AnyEvent
