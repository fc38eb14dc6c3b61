"""The wire format: ZeroMQ PUSH over TCP to where the run listens, one msgpack map in each message of one part.

Every map has the keys `type` and `run`. Off loopback the sockets are encrypted (CURVE): the sender shows the key
of the role `positions` and insists on that of `acquisition`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from ptychoflow.acquisition.detectors.interface import Part
from ptychoflow.acquisition.detectors.own_messages import OwnMessages

MAX_BEGIN_BYTES = 1 << 10
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Number = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]


class _Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    run: Name
    """A name for the positions of one series; another one for every series."""


class Begin(_Message, tag="begin", frozen=True):
    """The positions of a series begin."""

    series: Name | None = None
    """Name of the detector's series, or its number, where the sender knows it. Without, they belong to the series whose
    first frame comes nearest in time to the first of them."""
    total: Annotated[int, msgspec.Meta(ge=0, le=2**53)] | None = None
    """How many samples there will be, where that is known."""


class Positions(_Message, tag="positions", frozen=True):
    """Positions of samples: with consecutive numbers from `first` on, or with the numbers in `numbers`."""

    positions_m: list[tuple[float, float]]
    """(y, x) of each sample in metres; NaN where it is not known."""
    first: Number | None = None
    """Number of the first sample."""
    numbers: list[Number] | None = None
    """Number of each sample."""

    def __post_init__(self) -> None:
        """Raise ValueError if the samples have no numbers."""
        if (self.first is None) == (self.numbers is None):
            raise ValueError("give either `first` or `numbers`")
        if self.numbers is not None and len(self.numbers) != len(self.positions_m):
            raise ValueError(f"there are {len(self.positions_m)} positions but {len(self.numbers)} numbers")


class End(_Message, tag="end", frozen=True):
    """No more positions come in the run."""

    complete: bool = True
    """False if the scan was broken off."""


Message = Begin | Positions | End
MESSAGES: OwnMessages[Message] = OwnMessages(Message, about="of positions")
encode, decode = MESSAGES.encode, MESSAGES.decode


def begins(parts: Sequence[Part]) -> bool:
    """Return whether a message is a `Begin`."""
    return MESSAGES.is_a(Begin, parts, most_bytes=MAX_BEGIN_BYTES)
