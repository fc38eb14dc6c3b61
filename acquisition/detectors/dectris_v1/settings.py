"""Settings of the first version of the DECTRIS stream."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from ptychoflow.acquisition.detectors.dectris_settings import DectrisSettings, DectrisSimulatorSettings
from ptychoflow.streaming.settings import Port


class DectrisV1Settings(DectrisSettings):
    """Frames of a DECTRIS detector by the first version of its stream."""

    kind: Literal["dectris-v1"] = "dectris-v1"
    port: Port = 9999


class StreamCompression(StrEnum):
    """How a simulated detector compresses frames."""

    NONE = "none"
    LZ4 = "lz4"
    """One block of LZ4."""
    BSLZ4 = "bslz4"
    """Bitshuffle and LZ4."""


class DectrisV1SimulatorSettings(DectrisSimulatorSettings):
    """A simulated detector that speaks the first version of the stream."""

    kind: Literal["dectris-v1"] = "dectris-v1"
    port: Port = 9999
    compression: StreamCompression = StreamCompression.BSLZ4
    """How frames are compressed."""
