"""The documents of the event model, as far as they are needed: read from msgpack or JSON and checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from ptychoflow.acquisition.detectors.interface import Part

Uid = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
Text = Annotated[str, msgspec.Meta(max_length=4096)]
MAX_NAME_BYTES = 400
"""Of prefix and name of a document."""
PICKLE = tuple(b"\x80" + bytes([version]) for version in range(2, 6))


class Start(msgspec.Struct, frozen=True):
    """A run begins."""

    uid: Uid
    num_points: Any = None


class DataKey(msgspec.Struct, frozen=True):
    """What is known of one key of the data."""

    shape: Any = None
    dtype_numpy: Any = None
    units: Any = None


class Descriptor(msgspec.Struct, frozen=True):
    """What the events of a stream will hold."""

    uid: Uid
    run_start: Uid
    data_keys: dict[str, DataKey]
    name: Text = ""


class StreamResource(msgspec.Struct, frozen=True):
    """A dataset in a file that will grow."""

    uid: Uid
    data_key: Text
    mimetype: Text
    uri: Text
    parameters: dict[str, Any]
    run_start: Uid | None = None


class Span(msgspec.Struct, frozen=True):
    """From `start` on, up to `stop`."""

    start: Count
    stop: Count

    def __len__(self) -> int:
        """Return how many there are."""
        return max(self.stop - self.start, 0)


class StreamDatum(msgspec.Struct, frozen=True):
    """Rows of a dataset have been written, for these events."""

    stream_resource: Uid
    descriptor: Uid
    indices: Span
    seq_nums: Span


class Event(msgspec.Struct, frozen=True):
    """What was measured at one point."""

    descriptor: Uid
    seq_num: Count
    data: dict[str, Any]


class EventPage(msgspec.Struct, frozen=True):
    """What was measured at several points."""

    descriptor: Uid
    seq_num: list[Count]
    data: dict[str, Any]


class Stop(msgspec.Struct, frozen=True):
    """A run is over."""

    run_start: Uid
    exit_status: Text = "success"


Document = Start | Descriptor | StreamResource | StreamDatum | Event | EventPage | Stop
KINDS: Mapping[bytes, type[Document]] = {
    b"start": Start,
    b"descriptor": Descriptor,
    b"stream_resource": StreamResource,
    b"stream_datum": StreamDatum,
    b"event": Event,
    b"event_page": EventPage,
    b"stop": Stop,
}


def split(message: Part) -> tuple[bytes, bytes, memoryview] | None:
    """Return prefix, name and document of a message; None if it is none."""
    view = memoryview(message).cast("B")
    words = bytes(view[:MAX_NAME_BYTES]).split(b" ", 2)
    if len(words) < 3:
        return None
    prefix, name, _ = words
    return prefix, name, view[len(prefix) + len(name) + 2 :]


def read(name: bytes, content: memoryview) -> tuple[Document, Mapping[str, Any]] | None:
    """Return a document and everything that is in it; None for kinds that are not needed.

    Raises:
        ValueError: it cannot be read; one line says why.
    """
    if (kind := KINDS.get(name)) is None:
        return None
    if bytes(content[:2]) in PICKLE:
        raise ValueError(
            "documents come pickled, which nobody should read from a network: give the publisher "
            "serializer=msgpack.dumps, or one that writes JSON"
        )
    try:
        is_json = bytes(content[:1]) == b"{"
        values = json.loads(bytes(content)) if is_json else msgspec.msgpack.decode(content)
        return msgspec.convert(values, kind), values
    except (ValueError, RecursionError) as error:  # those of msgspec are ValueErrors
        raise ValueError(f"a document ({name.decode()}) that cannot be read: {error}") from error
