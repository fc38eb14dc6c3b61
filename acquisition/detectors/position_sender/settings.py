"""Configuration of positions that a program of the user's own sends, and of what sends like one."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import PositiveInt

from ptychoflow.streaming.settings import Port, Settings

DEFAULT_PORT = 31_100


class PositionSenderSettings(Settings):
    """Positions by message, from `PositionSender` or what else speaks its wire format."""

    kind: Literal["position-sender"] = "position-sender"
    host: str = "127.0.0.1"
    """Address of this host that is listened on."""
    port: Port = DEFAULT_PORT
    """Port that is listened on."""
    keys_dir: Path | None = None
    """CURVE keys made by `ptychoflow keys`; required for an address that is not loopback."""
    max_message_bytes: PositiveInt = 1 << 20
    """A larger message is refused, and its sender disconnected."""


class PositionSenderSimulatorSettings(Settings):
    """Sends the positions of a scan with `PositionSender`."""

    kind: Literal["position-sender"] = "position-sender"
    host: str = "127.0.0.1"
    """Where the run listens."""
    port: Port = DEFAULT_PORT
    """Port there."""
    keys_dir: Path | None = None
    """CURVE keys; required for a host that is not this one."""
    first_sample: int = 0
    """Number of the first sample."""
    samples_per_frame: PositiveInt = 1
    """Samples at every frame, all at its position."""
    series: bool = False
    """Say to which series the positions belong: its number from 1 on."""
