"""Multipart wire format: one msgpack header, then one raw part per array, sent and received without a copy."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import zmq

from ptychoflow.streaming.messages import SCHEMA_VERSION

log = logging.getLogger(__name__)

Arrays = dict[str, npt.NDArray[Any]]
BodyT = TypeVar("BodyT")

INTEGERS = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")
DTYPES = {
    name: np.dtype(name) for name in (*INTEGERS, "bool", "float16", "float32", "float64", "complex64", "complex128")
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
"""Looked up for every array: NumPy puts a name together anew whenever it is asked for it."""
MAX_ARRAYS = 64
MAX_DIMENSIONS = 6
MAX_HEADER_BYTES = 1 << 20
MAX_EXTENT = 1 << 40
"""Elements of the largest array, sides of length 0 counted as 1."""
REASON_LENGTH = 500
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes from outside. It allocates no more than the bytes hold, whatever they declare."""


class MalformedMessage(ValueError):
    """A message that does not follow the wire format; its text gives the reason. Count it, log it, drop it.

    Whatever the text quotes from the message, it is one line of bounded length that any terminal can show.
    """

    def __init__(self, text: str) -> None:
        line = " ".join(text[: 2 * REASON_LENGTH].split())[:REASON_LENGTH]
        super().__init__("".join(one if one.isprintable() else "?" for one in line))


class OversizedMessage(MalformedMessage):
    """A message that is larger than may be taken; its session and sequence are known."""

    def __init__(self, text: str, *, session: str, sequence: int) -> None:
        super().__init__(text)
        self.session, self.sequence = session, sequence


class _ArrayInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(max_length=64)]
    dtype: Annotated[str, msgspec.Meta(max_length=16)]
    shape: Annotated[list[Annotated[int, msgspec.Meta(ge=0)]], msgspec.Meta(max_length=MAX_DIMENSIONS)]


class _Schema(msgspec.Struct):
    schema: int


class _Header(msgspec.Struct, Generic[BodyT], frozen=True, forbid_unknown_fields=True):
    schema: int
    session: str
    sequence: int
    body: BodyT
    arrays: Annotated[list[_ArrayInfo], msgspec.Meta(max_length=MAX_ARRAYS)]


@dataclass(frozen=True)
class Decoded(Generic[BodyT]):
    """A message as it came in; the arrays are read-only views of the received parts."""

    body: BodyT
    arrays: Arrays
    session: str
    sequence: int


class Codec(Generic[BodyT]):
    """Encodes and decodes one union of message structs.

    Args:
        body_type: a `msgspec.Struct` or a union of tagged ones.
        max_message_bytes: a message whose arrays would be larger is refused.
    """

    def __init__(self, body_type: Any, max_message_bytes: int = 1 << 30) -> None:
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[_Header[BodyT]] = msgspec.msgpack.Decoder(_Header[body_type])
        self._schema_decoder = msgspec.msgpack.Decoder(_Schema)
        self._max_message_bytes = max_message_bytes

    def encode(
        self,
        body: BodyT,
        arrays: Mapping[str, npt.NDArray[Any]] | None = None,
        *,
        session: str = "",
        sequence: int = 0,
    ) -> list[bytes | memoryview]:
        """Return the parts of a message: a header, then each array.

        Args:
            body: the message.
            arrays: by name. The parts alias them: do not change them until they are sent.
            session: with `sequence` numbers the message within one consumer's session; sockets that need no
                acknowledgement leave both out.
            sequence: its number.
        """
        infos, payloads = [], []
        for name, array in (arrays or {}).items():
            sendable = _sendable(array)
            infos.append(_ArrayInfo(name, NAMES[sendable.dtype], list(sendable.shape)))
            payloads.append(sendable.reshape(-1).view(np.uint8).data)
        header = _Header(SCHEMA_VERSION, session, sequence, body, infos)
        return [self._encoder.encode(header), *payloads]

    def decode(self, parts: Sequence[bytes | memoryview | zmq.Frame]) -> Decoded[BodyT]:
        """Return the message, its arrays as read-only views of `parts`.

        Raises:
            MalformedMessage: unknown schema version, unknown kind, missing or surplus parts, a shape that no array
                has, or a part whose size differs from its declared dtype and shape.
            OversizedMessage: more than `max_message_bytes` are declared.
        """
        if not parts:
            raise MalformedMessage("message has no header")
        header = self._decode_header(_buffer(parts[0]))
        payloads = parts[1:]
        if len(payloads) != len(header.arrays):
            raise MalformedMessage(f"header declares {len(header.arrays)} arrays, message carries {len(payloads)}")
        sizes = [_declared_bytes(info) for info in header.arrays]
        if (declared_bytes := sum(sizes)) > self._max_message_bytes:
            text = f"message of {declared_bytes} bytes exceeds the limit of {self._max_message_bytes}"
            raise OversizedMessage(text, session=header.session, sequence=header.sequence)
        declared = zip(header.arrays, sizes, payloads, strict=True)
        arrays = {info.name: _view(info, size, _buffer(part)) for info, size, part in declared}
        if len(arrays) != len(header.arrays):
            raise MalformedMessage("two arrays of one message share a name")
        return Decoded(header.body, arrays, header.session, header.sequence)

    def _decode_header(self, raw: memoryview) -> _Header[BodyT]:
        if raw.nbytes > MAX_HEADER_BYTES:
            raise MalformedMessage(f"header of {raw.nbytes} bytes exceeds {MAX_HEADER_BYTES}")
        try:
            header = self._decoder.decode(raw)
        except UNREADABLE as error:
            self._require_own_schema(raw)
            raise MalformedMessage(f"header: {error}") from error
        _require_own(header.schema)
        return header

    def _require_own_schema(self, raw: memoryview) -> None:
        """Name another version where that is why a header cannot be read."""
        try:
            schema = self._schema_decoder.decode(raw).schema
        except UNREADABLE as error:
            raise MalformedMessage(f"header: {error}") from error
        _require_own(schema)


class ReceivingCodec(Codec[BodyT]):
    """Reads what comes from outside. What is malformed it drops and counts, and the log says so once.

    Args:
        body_type: a `msgspec.Struct` or a union of tagged ones.
        what: names the messages in the log.
        max_message_bytes: a message whose arrays would be larger is refused.
    """

    def __init__(self, body_type: Any, what: str, max_message_bytes: int = 1 << 30) -> None:
        super().__init__(body_type, max_message_bytes)
        self.malformed = 0
        """Messages that were dropped."""
        self._what = what

    def read(self, parts: Sequence[bytes | memoryview | zmq.Frame]) -> Decoded[BodyT] | None:
        """Return the message, or None where it is malformed."""
        try:
            return self.decode(parts)
        except MalformedMessage as error:
            self.drop(error)
            return None

    def drop(self, reason: object) -> None:
        """Count a message that is of no use, and log the first."""
        self.malformed += 1
        if self.malformed == 1:
            log.warning("dropped malformed %s, as all of it will be from now on: %s", self._what, reason)


def _require_own(schema: int) -> None:
    if schema != SCHEMA_VERSION:
        raise MalformedMessage(f"schema version {schema}, this side speaks {SCHEMA_VERSION}")


def _sendable(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array, in C order and in this machine's order of bytes: a name says nothing of either."""
    native = np.asarray(array, array.dtype.newbyteorder("=") if not array.dtype.isnative else None, order="C")
    if native.dtype not in NAMES:
        raise TypeError(f"arrays of dtype {array.dtype} cannot be sent; use one of {sorted(DTYPES)}")
    return native


def _buffer(part: bytes | memoryview | zmq.Frame) -> memoryview:
    return part.buffer if isinstance(part, zmq.Frame) else memoryview(part)


def _declared_bytes(info: _ArrayInfo) -> int:
    if info.dtype not in DTYPES:
        raise MalformedMessage(f"array {info.name!r} has dtype {info.dtype!r}, which is not allowed")
    return math.prod(info.shape) * DTYPES[info.dtype].itemsize


def _view(info: _ArrayInfo, size: int, raw: memoryview) -> npt.NDArray[Any]:
    """Return what was received as the array of `size` bytes that was declared."""
    if raw.nbytes != size:
        raise MalformedMessage(
            f"array {info.name!r}: {raw.nbytes} bytes arrived, {info.dtype} {info.shape} takes {size}"
        )
    # one without elements may be declared as wide as it likes; NumPy refuses it here, or once its dtype is changed
    if not size and math.prod(max(1, side) for side in info.shape) > MAX_EXTENT:
        raise MalformedMessage(f"array {info.name!r} has shape {info.shape}, which no array has")
    array = np.frombuffer(raw, dtype=DTYPES[info.dtype]).reshape(info.shape)
    array.flags.writeable = False
    return array
