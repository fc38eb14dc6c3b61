"""What the dashboard answers: one snapshot of the present, and patches of the histories."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from ptychoflow.streaming.events import Missing, MosaicKind, Part, PartState, Regime, Unplaced
from ptychoflow.streaming.state.parts import LastWord
from ptychoflow.streaming.state.series import SeriesPatch
from ptychoflow.streaming.state.warnings import Warned


class Model(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(use_attribute_docstrings=True, from_attributes=True)


class Health(Model):
    """Answer of `/healthz`."""

    status: str = "ok"
    run: str
    events: int
    """Telemetry events taken in so far."""


class PartHealth(Model):
    """One part of the run."""

    part: Part
    state: PartState
    text: str
    last_heard_s: float
    """When any telemetry of this part arrived last, seconds since 1970."""
    words: list[LastWord]
    """The last few, oldest first."""


class Scan(Model):
    """What is being scanned."""

    source: str
    perspectives: int | None
    frames_expected: int | None
    frame_shape_px: tuple[int, int]
    target_shape_px: tuple[int, int]
    object_pixel_size_m: tuple[float, float]
    energy_eV: float
    ground_truth: str
    notes: list[str]


class Frames(Model):
    """The frame ledger."""

    acquired: int
    published: int
    trained: int
    validation: int
    void: int
    held_out: int
    excluded: int
    unlabelled: int
    rejected: int
    unplaced: int
    """Sent by a detector, without a place in a perspective."""
    unplaced_because: dict[Unplaced, int]
    missing: int
    """Should have come and did not; not acquired."""
    missing_because: dict[Missing, int]
    inferred: int
    refreshed: int
    accounted: int
    """Frames whose end is known."""
    lost: int
    """Acquired and not accounted for: still on their way while the run goes on."""


class Training(Model):
    """The newest training step."""

    step: int
    loss: float
    loss_amplitude: float | None
    """None of images, like `loss_phase`."""
    loss_phase: float | None
    learning_rate: float
    stream_samples: int
    rehearsed_samples: int
    samples_per_s: float


class Inference(Model):
    """Rates of the edge, and frames that went another way than most."""

    frames_per_s: float
    frame_to_image_p50_ms: float
    frame_to_image_p99_ms: float
    waiting: int
    """Frames received and not yet imaged."""
    put_off: int
    """Frames imaged later than in turn, because they came too fast."""
    refused: int
    """Frames that cannot be imaged."""
    unstitched: int
    """Frames imaged and left out of the stitched image."""


class RankBuffer(Model):
    """The rehearsal buffer of one rank."""

    rank: int
    capacity: int
    """Total over all ranks."""
    size: int
    transport: str
    hidden_fraction: float
    waited_ms: float
    background_ms: float


class WeightsHistory(Model):
    """Versions of the network."""

    published: int | None = None
    """Newest version that the trainer published."""
    versions: list[int] = []
    """Those that can be rolled back to: kept by the edge, newest last."""
    applied: int | None = None
    """Version that the edge infers with."""
    rejected: int = 0
    last_rejection: str | None = None


class GroundTruth(Model):
    """Phase retrieval so far."""

    perspectives: int = 0
    seconds: float = 0.0
    skipped: int = 0
    """Perspectives that the regime spared it."""


class RegimeRow(Model):
    """A change of regime."""

    time_s: float
    regime: Regime
    perspective: int
    reason: str


class RegimeState(Model):
    """Which perspectives get ground truth, and what a first pass must reach for fewer of them."""

    name: Regime = Regime.LEARNING
    automatic: bool = False
    """Whether the regime changes by itself."""
    threshold_psnr_phase_db: float | None = None
    threshold_ssim_phase: float | None = None
    history: list[RegimeRow] = []
    """The last few changes, oldest first."""


class Probe(Model):
    """The frame that was shown last."""

    perspective: int
    index: int
    binned_px: int
    shape_px: tuple[int, int]
    most_frames: int | None
    """Of its perspective, as far as its source has said."""
    brightest: float
    """Largest value; counts, if nothing was binned."""
    revision: int


class ValidationRow(Model):
    """Validation losses after one perspective: how well each perspective seen so far is remembered."""

    after_perspective: int
    step: int
    losses: dict[int, float]
    constant: float


class Figures(Model):
    """Image quality per channel."""

    psnr_amplitude_db: float
    psnr_phase_db: float
    ssim_amplitude: float
    ssim_phase: float
    correlation_amplitude: float
    correlation_phase: float


class HeldOut(Model):
    """Quality over frames that nothing learned from."""

    perspective: int
    frames: int
    model_version: int
    quality: Figures
    constant: Figures
    memoriser: Figures | None
    """Of giving each frame the ground truth of the frame that looks most alike."""


class PerspectiveRow(Model):
    """Scores of one perspective."""

    perspective: int
    angle_deg: float | None = None
    frames: int = 0
    first_pass: Figures | None = None
    refreshed: Figures | None = None
    constant: Figures | None = None
    """Of always predicting the mean training patch; from the newest score."""
    validation_loss: float | None = None
    """Newest validation loss on this perspective."""
    residual_first_pass: float | None = None
    """Median share of a frame's energy that is not explained; needs no ground truth."""
    residual_refreshed: float | None = None


class Calibration(Model):
    """What residuals say about the error."""

    frames: int
    images: int
    """That the frames are from."""
    correlation: float
    """Spearman's, of residual and phase error."""
    spread: float
    """Errors are within this factor of what is said for two frames in three."""
    usable: bool
    """Whether an error is said."""


class Residual(Model):
    """The score without ground truth of the newest first pass."""

    perspective: int
    frames: int
    scored: int
    residual: float
    """Median over the frames scored: the share of a frame's energy that patch times probe does not explain."""
    newest: float | None
    """Median of the newest frames."""
    error_rad: float | None
    """Root mean square phase error that goes with it; None while it is not calibrated."""


class TaskRow(Model):
    """One task of a stream of images."""

    task: int
    class_names: list[str]
    """The first few."""
    classes: int
    images_expected: int
    images: int
    """Classified on arrival."""
    scored: int
    """Validation images among them; the accuracies are theirs."""
    top1: float | None
    """Live: with the weights of the moment of arrival."""
    top5: float | None
    newest_version: int | None
    now_top1: float | None
    """Of the network after the newest task that was learnt."""
    now_top5: float | None


class AccuracyRow(Model):
    """Accuracies of the network after one task, on every task seen so far."""

    after_task: int
    step: int
    top1: dict[int, float]


class Classification(Model):
    """Images whose classes come task by task."""

    source: str
    classes: int
    """Of all tasks together."""
    images_expected: int
    stored_px: int
    chance_top1: float
    """The accuracy of always naming the class that is right most often, on the mean over the tasks learnt."""
    chance_top5: float
    tasks: list[TaskRow]
    accuracies: list[AccuracyRow]
    """How well each task is remembered; the newest rows."""


class MosaicRow(Model):
    """An image that can be fetched."""

    perspective: int
    kind: MosaicKind
    model_version: int
    revision: int
    """Changes with the image."""
    shape_px: tuple[int, int]
    origin_px: tuple[float, float]
    pixel_size_m: tuple[float, float]
    frames: int
    """That a preview was made of."""
    residual: bool
    """Whether there is a map of what is not explained of the frames."""


class Present(Model):
    """How the run stands."""

    run: str
    live: bool
    """Whether this is the run that is watched, and not one that was opened from its folder."""
    controllable: bool
    """Whether this dashboard passes commands on to the run, given the token."""
    instance: str
    """New for every start of the dashboard."""
    state: PartState
    now_s: float
    """Clock of the dashboard's host, seconds since 1970."""
    started_s: float | None
    last_event_s: float | None
    events: int
    scan: Scan | None
    classification: Classification | None
    """How the tasks stand where images are streamed instead of a scan."""
    parts: list[PartHealth]
    frames: Frames
    unheard: list[str]
    """Who counts frames and has sent no last count; of a run that is over, what they ended with is not known."""
    training: Training | None
    inference: Inference | None
    buffer: list[RankBuffer]
    weights: WeightsHistory
    ground_truth: GroundTruth
    regime: RegimeState
    residual: Residual | None
    calibration: Calibration | None
    """None before an image with a reference was compared."""
    held_out: list[HeldOut]
    mosaics: list[MosaicRow]
    """Images at hand; others, of these perspectives too, may be in the run's folder: `/api/mosaics/{perspective}`."""
    paths: dict[int, int]
    """How many positions of the probe's path are known, by perspective."""
    probe: Probe | None


class StateUpdate(Model):
    """The present, and what changed in the histories since the viewer's last update (everything in `/api/state`)."""

    present: Present
    series: dict[str, SeriesPatch]
    """Curves: `training`, `validation`, `first_pass`, `refreshed`, `edge`, `buffer`, `steps`, `tasks`."""
    perspectives: list[PerspectiveRow]
    """New and changed rows, by perspective."""
    validation: list[ValidationRow]
    """New and changed rows of the matrix of validation losses; of the same perspective, the last one counts."""
    validation_anew: bool
    """Training went back since the viewer's last update: `validation` replaces the rows that the viewer has."""
    warnings: list[Warned]
    """New and changed rows, by id."""


class RunRow(Model):
    """A run that can be opened."""

    name: str
    watched: bool
    """Whether it is the one that this dashboard was started for."""
    live: bool
    """Whether this dashboard follows it as it goes on."""
    changed_s: float
    """When its folder changed last, seconds since 1970."""
    frames: int | None = None
    psnr_phase_db: float | None = None
    """Of its held-out frames; None where it has no summary."""


class Refused(Model):
    """A request that was not answered."""

    detail: str
    """Why not."""


class Sent(Model):
    """A command that was passed on."""

    command: str
