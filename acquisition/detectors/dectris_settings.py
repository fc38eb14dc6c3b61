"""What both protocols of DECTRIS detectors have in common: settings."""

from __future__ import annotations

from enum import StrEnum

from pydantic import NonNegativeFloat, PositiveInt

from ptychoflow.streaming.settings import Port, Settings


class RotationAxis(StrEnum):
    """An axis of the goniometer."""

    CHI = "chi"
    KAPPA = "kappa"
    OMEGA = "omega"
    PHI = "phi"
    TWO_THETA = "two_theta"


class DectrisSettings(Settings):
    """How frames of a DECTRIS detector are received."""

    host: str
    """Name or address of the detector control unit."""
    port: Port
    """Port of its stream."""
    rotation_axis: RotationAxis | None = None
    """Axis whose start is the angle of the perspective; None takes no angle from the detector."""
    high_water_mark: PositiveInt = 256
    """Messages that ZeroMQ keeps until the receiver takes them; then it leaves them with the detector."""
    max_message_bytes: PositiveInt = 1 << 30
    """A part of a message that is larger is refused before anything is allocated; ZeroMQ connects again behind it."""
    max_frame_px: PositiveInt = 1 << 25
    """Frames and masks with more pixels are refused; the largest detectors have 18 million."""


class HeaderDetail(StrEnum):
    """How much a simulated detector says when a series begins."""

    NONE = "none"
    """That it begins."""
    BASIC = "basic"
    """Its configuration as well."""
    ALL = "all"
    """Flat field and pixel mask as well."""


class DectrisSimulatorSettings(Settings):
    """How a simulated DECTRIS detector sends frames."""

    host: str = "127.0.0.1"
    """Name or address of this machine where it listens; the stream is not encrypted."""
    port: Port
    """Port where it listens; 0 takes a free one."""
    header_detail: HeaderDetail = HeaderDetail.ALL
    """How much it says when a series begins."""
    high_water_mark: PositiveInt = 64
    """Messages that are kept for a receiver that does not take them; then sending waits."""
    loses_unheard: bool = False
    """What is sent while nobody takes it is lost once somebody has listened, as with a detector; else sending waits."""
    linger_s: NonNegativeFloat = 5.0
    """How long closing waits until a connected receiver has taken what is left; so long does Ctrl-C take where it takes
    nothing."""
