"""Reads back the telemetry that the hub wrote to the run's folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ptychoflow.streaming.events import Telemetry

log = logging.getLogger(__name__)


def read_telemetry_log(path: Path) -> Iterator[Telemetry]:
    """Yield the events of a `telemetry.jsonl` in the order in which the hub received them.

    A line that cannot be read (the last one while the hub writes it, or a figure that was not finite) is skipped; how
    many were is logged as a warning.

    Raises:
        OSError: the file cannot be opened.
    """
    decoder = msgspec.json.Decoder(Telemetry)
    skipped = 0
    with path.open("rb") as lines:
        for line in lines:
            try:
                yield decoder.decode(line)
            except msgspec.DecodeError:
                skipped += 1
    if skipped:
        log.warning("%s: skipped %d lines that could not be read", path, skipped)
