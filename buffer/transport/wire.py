"""The messages between two ranks: a header of fixed size, then what its kind says."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple, Self

_HEADER = struct.Struct("<4sBxHHIIQQ")
_MAGIC = b"RBF1"
HEADER_BYTES = _HEADER.size


class Kind(IntEnum):
    """What a message says; `items`, `ticket`, `fields`, `window` and `first` are 0 where nothing is said of them."""

    SIZE = 1
    """So many items live here."""
    WANT_ITEMS = 2
    """Send me `items` items of your choice for my draw `ticket`, or write them to my `window` from row `first` on."""
    ITEMS = 3
    """Here they are: ids, labels (int64 each), then every field's rows, over the stream or over UCX."""
    WANT_ANNOTATION = 4
    """Rewrite the `fields` (bits, in the schema's order) of so many `items`: ids, then those fields' rows."""
    ANNOTATED = 5
    """`items` of them were still there."""
    PLACED = 6
    """They stand in your window."""
    WINDOW = 7
    """You may be able to write to this `window` of mine: its key, `items` bytes."""
    BYE = 8
    """I leave the group; ask me no more."""


class Message(NamedTuple):
    """A header. Every message carries how many items live with its sender, in `size`."""

    kind: Kind
    size: int
    ticket: int = 0
    items: int = 0
    fields: int = 0
    window: int = 0
    first: int = 0

    def pack(self) -> bytes:
        """The header's bytes."""
        return _HEADER.pack(_MAGIC, self.kind, self.fields, self.window, self.first, self.items, self.ticket, self.size)

    @classmethod
    def unpack(cls, header: bytes | bytearray) -> Self:
        """The header; ValueError if these bytes are none."""
        magic, kind, fields, window, first, items, ticket, size = _HEADER.unpack(header)
        if magic != _MAGIC:
            raise ValueError(f"a message begins with {magic!r} instead of {_MAGIC!r}")
        return cls(Kind(kind), size, ticket, items, fields, window, first)
