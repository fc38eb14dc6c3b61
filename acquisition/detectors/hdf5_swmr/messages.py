"""What the connection says of files: one msgpack map in each message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from ptychoflow.acquisition.detectors.interface import Part
from ptychoflow.acquisition.detectors.own_messages import OwnMessages

MOST_ROWS = 1024
"""In a message."""
MAX_BEGIN_BYTES = 1 << 12
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=r"^[^/\x00]+$")]
Path = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
Length = Annotated[int, msgspec.Meta(ge=1, le=1 << 31)]


class _Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Name
    """The file's."""


class FileBegan(_Message, tag="file", frozen=True):
    """A file is there and can be read."""

    shape_px: tuple[Length, Length] | None
    """Of its frames (y, x); None if only positions are taken."""


class FramesWritten(_Message, tag="frames", frozen=True):
    """Rows of frames can be read."""

    dataset: Path
    shape_px: tuple[Length, Length]
    dtype: Annotated[str, msgspec.Meta(max_length=16)]
    first: Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
    count: Annotated[int, msgspec.Meta(ge=1, le=MOST_ROWS)]


class PositionsWritten(_Message, tag="positions", frozen=True):
    """Positions have been written."""

    numbers: bytes
    """(n,) int64."""
    positions_m: bytes
    """(n, 2) float64 as (y, x)."""


class FileEnded(_Message, tag="end", frozen=True):
    """Nothing more is written."""

    complete: bool
    """False if its writer never closed it."""


class FileUnusable(_Message, tag="unusable", frozen=True):
    """A file, or the rest of it, cannot be taken."""

    reason: str
    gone: bool = False
    """It was moved away before anything was read of it: one that is back is taken."""


class WatchBegan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="watch"):
    """Files that were written to their end before are left out."""

    newest_ns: Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
    """When the last of them was changed last."""


Message = WatchBegan | FileBegan | FramesWritten | PositionsWritten | FileEnded | FileUnusable
MESSAGES: OwnMessages[Message] = OwnMessages(Message, about="about files")
encode, decode = MESSAGES.encode, MESSAGES.decode


def begins(parts: Sequence[Part]) -> bool:
    """Return whether a message is a `FileBegan`."""
    return MESSAGES.is_a(FileBegan, parts, most_bytes=MAX_BEGIN_BYTES)
