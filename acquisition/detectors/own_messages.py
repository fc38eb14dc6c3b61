"""Messages in a format of ours: one tagged msgpack map each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import msgspec

from ptychoflow.acquisition.detectors.interface import Part
from ptychoflow.streaming.codec import UNREADABLE

Message = TypeVar("Message")
LONGEST_REASON = 200


class OwnMessages(Generic[Message]):
    """Writes and reads one kind of messages.

    Args:
        kinds: a union of tagged `msgspec.Struct`s.
        about: what they are about, in words for errors.
    """

    def __init__(self, kinds: Any, *, about: str) -> None:
        self._about = about
        self._decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(kinds)
        self._encoder = msgspec.msgpack.Encoder()

    def encode(self, message: Message) -> bytes:
        """Return a message as it is sent."""
        return self._encoder.encode(message)

    def decode(self, data: Part) -> Message:
        """Return what a message says. It allocates no more than a multiple of its length.

        Raises:
            ValueError: it does not follow the format; one line says how.
        """
        try:
            return self._decoder.decode(data)
        except UNREADABLE as error:
            reason = " ".join(str(error).split())[:LONGEST_REASON]
            raise ValueError(f"a message {self._about} cannot be read: {reason}") from error

    def is_a(self, kind: type[Any], parts: Sequence[Part], *, most_bytes: int) -> bool:
        """Return whether a message is of this kind, which has one part of so many bytes at most."""
        if len(parts) != 1 or len(parts[0]) > most_bytes:
            return False
        try:
            return isinstance(self.decode(parts[0]), kind)
        except ValueError:
            return False
