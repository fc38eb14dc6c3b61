"""What the ranks of the trainer say; which one speaks is in the envelope."""

from __future__ import annotations

from ptychoflow.streaming.events.base import Event, Whole


class RankCounts(Event, tag="rank_counts", frozen=True):
    """One trainer rank's side of the frame ledger; distinct frame ids."""

    trained: Whole
    validation: Whole
    duplicates: Whole
    rejected: Whole
    """Samples refused by the trainer (non-finite, wrong shape)."""
    ranks: Whole = 0
    """Ranks of the trainer since it was last started, 0 if unknown; what other ranks counted before is in their counts.
    """
    final: bool = False
    """The part has ended, and counts no more."""


class TrainingStep(Event, tag="training_step", frozen=True):
    """Progress of training, from rank 0, a few times a second at most."""

    step: Whole
    loss: float
    """What the strategy minimises, so not comparable between strategies; estimated from rank 0's samples."""
    loss_amplitude: float | None
    """None of images, like `loss_phase`."""
    loss_phase: float | None
    learning_rate: float
    stream_samples: Whole
    """Samples of the stream trained on so far, all ranks."""
    rehearsed_samples: Whole
    """Representatives trained on so far, all ranks."""
    samples_per_s: float


class TrainingResumed(Event, tag="training_resumed", frozen=True):
    """The ranks went back to a checkpoint; what was reported of later steps is void."""

    step: Whole
    """Steps made when it was taken."""


class StepBreakdown(Event, tag="step_breakdown", frozen=True):
    """Mean milliseconds per step since the last report on rank 0."""

    step: Whole
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

    capacity: Whole
    """Total over all ranks."""
    size: Whole
    """Items on this rank."""
    transport: str
    hidden_fraction: float
    waited_ms: float
    background_ms: float


class ValidationLoss(Event, tag="validation_loss", frozen=True):
    """Validation loss after a perspective, over validation frames of all ranks.

    L1 amplitude + L1 phase; of images, cross-entropy.
    """

    after_perspective: Whole
    step: Whole
    per_perspective: dict[Whole, float]
    mean_over_seen: float
    constant: float
    """The loss of always predicting the mean training patch; of images, of always saying how frequent
    each class is among them, the best that can be said without looking at them."""


class WeightsPublished(Event, tag="weights_published", frozen=True):
    """The trainer published a version."""

    version: Whole
    step: Whole
    sha256: str
    validation_loss: float | None
    final: bool
