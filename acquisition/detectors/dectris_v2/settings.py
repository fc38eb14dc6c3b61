"""Settings of DECTRIS stream2."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from ptychoflow.acquisition.detectors.dectris_settings import DectrisSettings, DectrisSimulatorSettings
from ptychoflow.streaming.settings import Port


class DectrisV2Settings(DectrisSettings):
    """Frames of a DECTRIS detector by stream2."""

    kind: Literal["dectris-v2"] = "dectris-v2"
    port: Port = 31001
    channel: str | None = None
    """Channel whose frames are taken, such as `threshold_1`; it must be stated where the detector sends several."""
    translation_is_distance: bool = False
    """The detector's translation along the beam, which the stream has in place of a distance, counts from the
    specimen."""


class StreamCompression(StrEnum):
    """How a simulated detector compresses frames and masks."""

    NONE = "none"
    LZ4 = "lz4"
    """LZ4 in the frames of HDF5."""
    BSLZ4 = "bslz4"
    """Bitshuffle and LZ4."""
    BSZSTD = "bszstd"
    """Bitshuffle and Zstandard, as Jungfraujoch sends it."""


class DectrisV2SimulatorSettings(DectrisSimulatorSettings):
    """A simulated detector that speaks stream2."""

    kind: Literal["dectris-v2"] = "dectris-v2"
    port: Port = 31001
    compression: StreamCompression = StreamCompression.BSLZ4
    """How frames and masks are compressed."""
    channel: str = "threshold_1"
    """Name of its channel."""
