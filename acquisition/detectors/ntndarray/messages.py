"""What the connection makes of EPICS's objects: a header in msgpack, and the pixels as they came."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ptychoflow.acquisition.detectors.interface import Part

Scalar = int | float | str
MAX_ATTRIBUTES = 256
MAX_TEXT = 256
"""Longer texts are cut."""


class Began(msgspec.Struct, tag="began", frozen=True, forbid_unknown_fields=True):
    """A series begins; its frames follow."""

    series: str


class Frame(msgspec.Struct, tag="frame", frozen=True, forbid_unknown_fields=True):
    """One NTNDArray; its pixels are the second part."""

    series: str
    unique_id: int
    sizes_px: list[int]
    """Of the dimensions, as they came: x first."""
    dtype: str
    """Of the second part as it came, as NumPy writes it; of compressed pixels, bytes."""
    codec: str
    """Name of the compression, "" without one."""
    codec_type: int | None
    """Number of the pvData type of compressed pixels."""
    uncompressed_bytes: int
    attributes: dict[str, Scalar]


class Ended(msgspec.Struct, tag="ended", frozen=True, forbid_unknown_fields=True):
    """A series is over."""

    series: str
    aborted: bool


Message = Began | Frame | Ended
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    """Return the first part."""
    return _ENCODER.encode(message)


def decode(parts: Sequence[Part]) -> Message:
    """Return what the first part says.

    Raises:
        ValueError: it is no such message; one line says why.
    """
    if not parts:
        raise ValueError("the message has no parts")
    try:
        message: Message = _DECODER.decode(parts[0])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"the header of an NTNDArray cannot be read: {error}") from error
    return message
