"""Configuration of the acquisition service."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, FiniteFloat, PositiveFloat, PositiveInt, model_validator

from ptychoflow.acquisition.source_settings import RoleSettings
from ptychoflow.streaming.settings import Settings


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

    @property
    def automatic(self) -> bool:
        """Whether the regime changes by itself."""
        return self.psnr_db is not None or self.ssim is not None


class PublishingSettings(Settings):
    """How a source is read and published, whatever it is."""

    rate_hz: PositiveFloat | None = None
    """Frames per second; None takes them as fast as source and receivers allow."""
    batch_frames: PositiveInt = 16
    """Frames per message."""
    edge: bool = True
    """An edge takes the frames."""
    trainer: bool = True
    """Trainer ranks take the samples; without, ground truth is computed for the edge's reference images alone."""
    spool_memory_bytes: PositiveInt = 2 << 30
    """Unacknowledged data held in memory; more is spooled to the run's folder."""


class AcquisitionSettings(PublishingSettings):
    """How the frames of a scan are taken and published."""

    roles: RoleSettings = RoleSettings()
    """What is kept for validation and what is held out."""
    regime: RegimeSettings = RegimeSettings()
    """When phase retrieval may rest."""
    record: bool = False
    """Write the frames to `recording.h5` in the run's folder."""

    @model_validator(mode="after")
    def _somebody_scores(self) -> Self:
        if self.regime.automatic and not self.edge:
            raise ValueError("the regime's thresholds need an edge: its scores are compared with them")
        return self
