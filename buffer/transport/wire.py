"""The messages between two ranks: a header of fixed size, then what its kind says."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple, Self

_HEADER = struct.Struct("<4sBxHIIQQQ")
_MAGIC = b"RBF2"
HEADER_BYTES = _HEADER.size
WEIGHT_BYTES = 8
"""A float64; part of the messages that say so where draws are by score, and of none where they are uniform."""
SCORES_BIT = 63
"""Marks scores among the fields of an update."""


class Kind(IntEnum):
    """What a message says; the header's other fields are 0 where nothing is said of them."""

    SIZE = 1
    """So many items live here; by score: their weight."""
    WANT_ITEMS = 2
    """Send me `items` items of your choice for my draw `request_id`, or write them to my `window` from row `first` on.

    By score: none of those with the ids that follow, `detail` of them.
    """
    ITEMS = 3
    """Here they are: by score the weight of those not sent, ids, labels (int64 each), then every field's rows.

    The rows come over the stream or over UCX.
    """
    WANT_UPDATE = 4
    """Rewrite the fields `detail` (bits, in the schema's order) of so many `items`: ids, fields, scores if marked."""
    UPDATED = 5
    """`items` of them were still there."""
    PLACED = 6
    """They stand in your window; by score: the weight of those that do not."""
    WINDOW = 7
    """You may be able to write to this `window` of mine: its key, `items` bytes."""
    BYE = 8
    """I leave the group; ask me no more."""
    RESTORED = 9
    """I have taken over what a checkpoint held: `SIZE`, after which draws may count on me."""


class Message(NamedTuple):
    """A header. Every message carries how many items live with its sender, in `size`."""

    kind: Kind
    size: int
    request_id: int = 0
    items: int = 0
    detail: int = 0
    window: int = 0
    first: int = 0

    def pack(self) -> bytes:
        """The header's bytes."""
        return _HEADER.pack(
            _MAGIC, self.kind, self.window, self.first, self.items, self.detail, self.request_id, self.size
        )

    @classmethod
    def unpack(cls, header: bytes | bytearray) -> Self:
        """The header; ValueError if these bytes are none."""
        magic, kind, window, first, items, detail, request_id, size = _HEADER.unpack(header)
        if magic != _MAGIC:
            raise ValueError(f"a message begins with {magic!r} instead of {_MAGIC!r}")
        return cls(Kind(kind), size, request_id, items, detail, window, first)
