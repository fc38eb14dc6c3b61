"""Reads back the telemetry that the hub wrote to the run's folder."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from ptychoflow.streaming.codec import UNREADABLE
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.events import Telemetry
from ptychoflow.streaming.messages import SCHEMA_VERSION

log = logging.getLogger(__name__)

MAX_LINE_BYTES = 8 << 20
"""Longer than any event that a hub lets in."""


class _Schema(msgspec.Struct):
    schema: int = 0
    """Lines of versions that did not state it have none."""


def log_identity(path: Path) -> str:
    """Return what tells the file of one run from that of another: a digest of its first line, "" without one."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        line = _whole_line(file)
    return "" if line is None else hashlib.blake2s(line, digest_size=8).hexdigest()


class TelemetryLog:
    """The events of a `telemetry.jsonl` in the order in which the hub received them; iterate over it to read on.

    A line that cannot be read is skipped; how many were is logged once, when the end is reached. A last line that the
    hub is still writing is left for the next time.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.position = 0
        """Bytes read so far, up to the end of a line."""
        self._path = path
        self._decoder = msgspec.json.Decoder(Telemetry)
        self._read = self._malformed = self._of_others = 0

    def __iter__(self) -> Iterator[Telemetry]:
        """Yield the events from `position` on.

        Raises:
            OSError: the file cannot be read.
            UserError: the file has been read, and it held nothing but lines of another version of the program.
        """
        skipped = self._malformed + self._of_others
        with self._path.open("rb") as file:
            file.seek(self.position)
            while (line := _whole_line(file)) is not None:
                telemetry = self._decode(line)
                self.position = file.tell()
                if telemetry is not None:
                    self._read += 1
                    yield telemetry
        if self._of_others and not self._read:
            raise UserError(
                f"{self._path} was written by another version of ptychoflow, which this one cannot read; "
                "open the run with the version named in its environment.json"
            )
        if self._malformed + self._of_others > skipped:
            log.warning(
                "%s: skipped %d malformed lines and %d of another version", self._path, self._malformed, self._of_others
            )

    def _decode(self, line: bytes) -> Telemetry | None:
        try:
            return self._decoder.decode(line)
        except UNREADABLE:
            pass
        try:
            # a figure that was not finite is null
            return msgspec.convert(_with_nan(msgspec.json.decode(line)), Telemetry)
        except UNREADABLE:
            self._count(line)
            return None

    def _count(self, line: bytes) -> None:
        try:
            known = msgspec.json.decode(line, type=_Schema).schema == SCHEMA_VERSION
        except UNREADABLE:
            known = True
        if known:
            self._malformed += 1
        else:
            self._of_others += 1


def _whole_line(file: Any) -> bytes | None:
    """Return the next line, cut short where it is too long; None at the end or where the last line is not ended yet."""
    line: bytes = file.readline(MAX_LINE_BYTES)
    end = line
    while end and not end.endswith(b"\n"):
        end = file.readline(MAX_LINE_BYTES)
    return line if end else None


def _with_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_nan(item) for item in value]
    return math.nan if value is None else value
