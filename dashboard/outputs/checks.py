"""Whether the outputs that the settings name can work, before a run starts; nothing is loaded."""

from __future__ import annotations

from ptychoflow.dashboard.outputs.settings import OutputsSettings
from ptychoflow.streaming.libraries import require_library
from ptychoflow.streaming.settings import RunContext
from ptychoflow.streaming.writable import require_writable


def check_outputs(settings: OutputsSettings, *, run: RunContext) -> None:
    """Raise `UserError` if the library that an output needs is not installed, or its folder cannot be written."""
    if settings.ntndarray is not None:
        require_library("p4p", extra="epics")
    if settings.tiled is not None:
        require_library("httpx", extra="tiled")
    if settings.ptychodus is not None:
        require_writable(settings.ptychodus.folder / run.name)
