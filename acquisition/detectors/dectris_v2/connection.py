"""Drains DECTRIS stream2."""

from __future__ import annotations

from collections.abc import Sequence

from ptychoflow.acquisition.detectors.interface import Part
from ptychoflow.acquisition.detectors.zmq_connection import ZmqConnection

BEGINS = b"\x64type\x65start"
"""Key and value as CBOR writes them; they come first."""
LOOKED_AT_BYTES = 64


class DectrisV2Connection(ZmqConnection):
    """Takes every message of a detector that pushes stream2."""

    @staticmethod
    def begins_series(parts: Sequence[Part]) -> bool:
        """Whether a part is a `start` message."""
        return any(BEGINS in bytes(part[:LOOKED_AT_BYTES]) for part in parts)
