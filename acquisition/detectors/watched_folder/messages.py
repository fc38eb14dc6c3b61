"""What the connection says of files: a msgpack map in the first part of each message; a file itself is the second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from ptychoflow.acquisition.detectors.interface import Part
from ptychoflow.acquisition.detectors.own_messages import OwnMessages

MAX_HEAD_BYTES = 1 << 12
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


class SeriesOpened(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="series"):
    """The first file of a series is there."""

    series: Name
    folder_is_new: bool = False
    """One of this name was told of before, and was moved away with its files."""


class FileCame(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="file"):
    """A file, whose content is the second part."""

    series: Name
    name: Name
    number: Annotated[int, msgspec.Meta(ge=0, lt=1 << 40)]
    """In the series."""


class SeriesClosed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="end"):
    """A series is over."""

    series: Name
    complete: bool = True
    """All its files have come; False where all that is known is that another one has its name."""


class FileUnusable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="unusable"):
    """A file that cannot be taken."""

    name: Name
    reason: str


class WatchBegan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="watch"):
    """Files that were there before are left out."""

    newest_ns: Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
    """When the last of them was changed last."""


Message = WatchBegan | SeriesOpened | FileCame | SeriesClosed | FileUnusable
MESSAGES: OwnMessages[Message] = OwnMessages(Message, about="about files")
encode = MESSAGES.encode


def decode(parts: Sequence[Part]) -> Message:
    """Return what the first part of a message says.

    Raises:
        ValueError: it does not follow the format.
    """
    if not parts or len(parts[0]) > MAX_HEAD_BYTES:
        raise ValueError("a message about files without a head")
    message = MESSAGES.decode(parts[0])
    if len(parts) != (2 if isinstance(message, FileCame) else 1):
        raise ValueError(f"a message about files with {len(parts)} parts")
    return message
