"""What all telemetry events are made of, and what every part says of itself."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec


class Part(StrEnum):
    """The parts of a run."""

    ACQUISITION = "acquisition"
    TRAINER = "trainer"
    EDGE = "edge"
    DASHBOARD = "dashboard"
    OUTPUTS = "outputs"
    WORKFLOW = "workflow"


WATCHING = frozenset({Part.DASHBOARD, Part.OUTPUTS})
"""Parts that do none of the run's work, and stay until the others have ended."""


class PartState(StrEnum):
    """What a part is doing."""

    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    FAILED = "failed"


Whole = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]
"""A whole number that every reader holds exactly, JavaScript's too; others are refused when an event is decoded."""


class Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all telemetry events."""


class PartStatus(Event, tag="part_status", frozen=True):
    """A part changed state; `text` says why, in words for a person."""

    state: PartState
    text: str = ""
    stopped: bool = False
    """It was asked to end before its work was done."""


class WarningRaised(Event, tag="warning", frozen=True):
    """Something a user should know before trusting the result."""

    text: str
