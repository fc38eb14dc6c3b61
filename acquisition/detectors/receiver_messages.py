"""What the acquisition and its receiver say to each other: one line of JSON each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
from pydantic import TypeAdapter

from ptychoflow.acquisition.detectors.settings import LiveSettings, LiveSourceSettings

_SOURCES: TypeAdapter[Sequence[LiveSourceSettings]] = TypeAdapter(list[LiveSourceSettings])


class ReceiverJob(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be received, and where it goes."""

    folder: str
    sources: str
    """Settings as JSON: of the frames, then of the positions if they come from elsewhere."""
    queue_bytes: int

    @classmethod
    def of(cls, settings: LiveSettings, folder: Path) -> ReceiverJob:
        """Return the job of a scan's receiver."""
        sources = _SOURCES.dump_json(settings.sources).decode()
        return cls(str(folder), sources, settings.queue_bytes)

    def source_settings(self) -> Sequence[LiveSourceSettings]:
        """Return the settings of all sources."""
        return _SOURCES.validate_json(self.sources)


class ReceiverStatus(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="status"):
    """How the receiver stands."""

    trouble: str
    """Why the disk takes nothing; empty while it does."""
    written_until_s: float
    """By the receiver's clock: all that came before is in the arrivals files."""
    clock_ahead_s: float
    """Of the monotonic clock: so much later the receiver's clock is."""


class ReceiverFailed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="failed"):
    """A source can never be received."""

    reason: str


ReceiverAnswer = ReceiverStatus | ReceiverFailed
