"""Configuration of the acquisition service."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, FiniteFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ptychoflow.acquisition.source_settings import RoleSettings
from ptychoflow.streaming.settings import Settings

MESSAGE_BYTES = 1 << 21
"""Beyond this, what a message costs by itself hardly counts beside its copies."""
MOST_FRAMES, FEWEST_FRAMES = 64, 16
"""Frames per message where they are small: the edge images so many at once, and slow sources bring so many."""
BATCH_S = 0.05
"""How long frames may wait for others, unless they are fewer than `FEWEST_FRAMES`."""


class RegimeSettings(Settings):
    """When phase retrieval may rest.

    Without a threshold, every perspective gets ground truth unless people command otherwise.

    A perspective is good enough when the phase image of its first pass meets every threshold that is set, and has at
    least the PSNR of the constant prediction.
    """

    psnr_db: FiniteFloat | None = None
    """Least PSNR of the phase."""
    ssim: Annotated[float, Field(gt=-1.0, lt=1.0)] | None = None
    """Least SSIM of the phase."""
    consecutive: PositiveInt = 3
    """Good perspectives in a row that lead to *monitoring* (k)."""
    one_in: Annotated[int, Field(ge=2)] = 4
    """In *monitoring*, one in so many perspectives gets ground truth (m). One that is held out as a whole always does:
    the result is judged there."""
    learning_one_in: PositiveInt = 1
    """In *learning*, one in so many perspectives gets ground truth, the first one always. Neighbouring perspectives are
    much alike, so that fewer cost little; what was learnt is rehearsed meanwhile."""
    residual_ratio: Annotated[FiniteFloat, Field(gt=1.0)] = 1.3
    """*Learning* comes back as soon as the score without ground truth, over the newest frames, is so many times the
    largest that any of the last good perspectives had; with a very large one, ground truth decides alone."""

    @property
    def automatic(self) -> bool:
        """Whether the regime changes by itself."""
        return self.psnr_db is not None or self.ssim is not None


class PublishingSettings(Settings):
    """How a source is read and published, whatever it is."""

    rate_hz: PositiveFloat | None = None
    """Frames per second; None takes them as fast as source and receivers allow."""
    batch_frames: PositiveInt | None = None
    """Frames per message; by default as many as make 2 MiB, 64 at most. At a slow `rate_hz`, it is those of 50 ms, or
    16."""
    edge: bool = True
    """An edge takes the frames."""
    trainer: bool = True
    """Trainer ranks take the samples; without, ground truth is computed for the edge's reference images alone."""
    spool_memory_bytes: PositiveInt = 2 << 30
    """Unacknowledged data held in memory; more is spooled to the run's folder."""

    def frames_per_message(self, frame_bytes: int) -> int:
        """Return how many frames of so many bytes go together: a message costs the same whatever it carries."""
        if self.batch_frames is not None:
            return self.batch_frames
        at_hand = MOST_FRAMES if self.rate_hz is None else max(FEWEST_FRAMES, int(self.rate_hz * BATCH_S))
        return max(1, min(MOST_FRAMES, at_hand, MESSAGE_BYTES // max(1, frame_bytes)))


class AcquisitionSettings(PublishingSettings):
    """How the frames of a scan are taken and published."""

    roles: RoleSettings = RoleSettings()
    """What is kept for validation and what is held out."""
    regime: RegimeSettings = RegimeSettings()
    """When phase retrieval may rest."""
    head_start_frames: NonNegativeInt = 512
    """So many of the first frames, where their probe is known, may the trainer learn from before there is ground truth;
    0 sends none."""
    record: bool = False
    """Write the frames to `recording.h5` in the run's folder."""

    @model_validator(mode="after")
    def _somebody_scores(self) -> Self:
        if self.regime.automatic and not self.edge:
            raise ValueError("the regime's thresholds need an edge: its scores are compared with them")
        return self
