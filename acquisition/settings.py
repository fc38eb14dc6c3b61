"""Configuration of the acquisition service."""

from __future__ import annotations

from pydantic import PositiveFloat, PositiveInt

from acquisition.source_settings import RoleSettings
from streaming.settings import Settings


class AcquisitionSettings(Settings):
    """How frames are taken from the source and published."""

    rate_hz: PositiveFloat | None = None
    """Frames per second; None takes them as fast as source and receivers allow."""
    batch_frames: PositiveInt = 16
    """Frames per message."""
    roles: RoleSettings = RoleSettings()
    """What is kept for validation and what is held out."""
    record: bool = False
    """Write the frames to `recording.h5` in the run's folder."""
    edge: bool = True
    """An edge takes the frames."""
    trainer: bool = True
    """Trainer ranks take the samples; without, ground truth is computed for the edge's reference images alone."""
    spool_memory_bytes: PositiveInt = 2 << 30
    """Unacknowledged data held in memory; more is spooled to the run's folder."""
