"""What all telemetry events are made of."""

from __future__ import annotations

import msgspec


class Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all telemetry events."""
