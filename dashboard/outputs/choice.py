"""The outputs that the settings name."""

from __future__ import annotations

import logging
from urllib.parse import urlsplit

from ptychoflow.dashboard.outputs.bluesky import BlueskyOutput
from ptychoflow.dashboard.outputs.ntndarray import NtndarrayOutput
from ptychoflow.dashboard.outputs.output import Output
from ptychoflow.dashboard.outputs.ptychodus import PtychodusOutput
from ptychoflow.dashboard.outputs.settings import OutputsSettings
from ptychoflow.dashboard.outputs.tiled import TiledOutput
from ptychoflow.streaming.settings import RunContext, is_loopback

log = logging.getLogger(__name__)


def open_outputs(settings: OutputsSettings, *, run: RunContext) -> list[Output]:
    """Return the outputs that are switched on.

    Raises:
        UserError: a library is missing, or an address cannot be listened on, or a folder cannot be made.
    """
    outputs: list[Output] = []
    if settings.ntndarray is not None:
        _tell_open(NtndarrayOutput.name, settings.ntndarray.host)
        outputs.append(NtndarrayOutput(settings.ntndarray))
    if settings.bluesky is not None:
        _tell_open(BlueskyOutput.name, settings.bluesky.host)
        outputs.append(BlueskyOutput(settings.bluesky, run=run.name))
    if settings.tiled is not None:
        url = urlsplit(settings.tiled.url)
        if url.scheme == "http":
            _tell_open(TiledOutput.name, url.hostname or "")
        outputs.append(TiledOutput(settings.tiled, run=run.name))
    if settings.ptychodus is not None:
        outputs.append(PtychodusOutput(settings.ptychodus, run=run))
    return outputs


def _tell_open(name: str, host: str) -> None:
    if not is_loopback(host):
        log.warning("output %s at %s is not on loopback: it is not encrypted, and whoever is there sees it", name, host)
