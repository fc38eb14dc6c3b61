"""Drains the first version of the DECTRIS stream."""

from __future__ import annotations

from collections.abc import Sequence

from ptychoflow.acquisition.detectors.interface import Part
from ptychoflow.acquisition.detectors.zmq_connection import ZmqConnection

BEGINS = b'"dheader-'
LARGEST_BYTES = 1024
"""The part that begins a series has three short fields."""


class DectrisV1Connection(ZmqConnection):
    """Takes every message of a detector that pushes the first version of the stream."""

    @staticmethod
    def begins_series(parts: Sequence[Part]) -> bool:
        """Whether a part announces a series."""
        return any(len(part) <= LARGEST_BYTES and BEGINS in bytes(part) for part in parts)
