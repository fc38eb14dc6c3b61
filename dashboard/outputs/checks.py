"""Whether the outputs that the settings name can work, before a run starts; nothing is loaded."""

from __future__ import annotations

from ptychoflow.dashboard.outputs.settings import OutputsSettings
from ptychoflow.streaming.libraries import require_library


def check_outputs(settings: OutputsSettings) -> None:
    """Raise `UserError` if the library that an output needs is not installed."""
    if settings.ntndarray is not None:
        require_library("p4p", extra="epics")
    if settings.tiled is not None:
        require_library("httpx", extra="tiled")
