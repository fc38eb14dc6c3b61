"""The wire format: what goes in comes out, and nothing malformed gets through."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from ptychoflow.streaming.codec import DTYPES, Codec, MalformedMessage
from ptychoflow.streaming.messages import SCHEMA_VERSION, DataMessage, Frames, PerspectiveEnd, ScanEnd

BODY = Frames(perspective=3, angle_deg=12.5, acquired_at_s=1.25)


@pytest.fixture
def codec() -> Codec[DataMessage]:
    return Codec(DataMessage, max_message_bytes=10_000)


@pytest.mark.parametrize("dtype", sorted(DTYPES))
@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 5), (2, 3, 4, 5)])
def test_every_dtype_and_shape_arrives_bit_identical(codec: Codec[DataMessage], dtype: str, shape: tuple[int]) -> None:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.random.default_rng(5).integers(0, 2 if dtype == "bool" else 256, size, dtype=np.uint8)
    array = raw.view(dtype).reshape(shape) if size else np.zeros(shape, dtype)
    decoded = codec.decode([bytes(part) for part in codec.encode(BODY, {"a": array}, session="s", sequence=9)])
    assert decoded.body == BODY
    assert (decoded.session, decoded.sequence) == ("s", 9)
    assert decoded.arrays["a"].dtype == array.dtype
    assert decoded.arrays["a"].shape == array.shape
    assert decoded.arrays["a"].tobytes() == array.tobytes()


def test_encoding_does_not_copy_and_decoded_arrays_are_read_only(codec: Codec[DataMessage]) -> None:
    array = np.arange(12, dtype=np.uint16).reshape(3, 4)
    parts = codec.encode(BODY, {"diffraction": array})
    assert np.shares_memory(np.frombuffer(parts[1], np.uint8), array)
    view = codec.decode(parts).arrays["diffraction"]
    assert np.shares_memory(view, array)
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0] = 1


def test_non_contiguous_arrays_are_sent_in_their_logical_order(codec: Codec[DataMessage]) -> None:
    array = np.arange(24, dtype=np.int32).reshape(4, 6)[::2, ::-3]
    np.testing.assert_array_equal(codec.decode(codec.encode(BODY, {"a": array})).arrays["a"], array)


def test_arrays_of_the_other_order_of_bytes_arrive_with_their_values(codec: Codec[DataMessage]) -> None:
    for dtype in (">u2", "<u2", ">f4", "<f4"):
        array = np.arange(600, 606).astype(dtype).reshape(2, 3)
        arrived = codec.decode(codec.encode(BODY, {"a": array})).arrays["a"]
        np.testing.assert_array_equal(arrived, array)
        assert arrived.dtype.isnative


def test_kinds_are_told_apart(codec: Codec[DataMessage]) -> None:
    for body in (PerspectiveEnd(1, 2.0, 3), ScanEnd(4)):
        assert codec.decode(codec.encode(body)).body == body


def header(**changes: object) -> bytes:
    """A valid header of one array, with changes."""
    body = {"type": "scan_end", "frames": 1}
    arrays = [{"name": "a", "dtype": "uint8", "shape": [4]}]
    whole = {"schema": SCHEMA_VERSION, "session": "", "sequence": 0, "body": body, "arrays": arrays}
    return msgspec.msgpack.encode(whole | changes)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([], "no header"),
        ([b"\xc1 not msgpack", b"1234"], "header"),
        ([header(schema=99), b"1234"], "schema version 99"),
        ([header(body={"type": "pickle"}), b"1234"], "Invalid value 'pickle'"),
        ([header(body={"type": "scan_end", "frames": "many"}), b"1234"], "Expected `int`"),
        ([header(surplus=1), b"1234"], "unknown field"),
        ([header()], "declares 1 arrays, message carries 0"),
        ([header(), b"1234", b"5"], "declares 1 arrays, message carries 2"),
        ([header(), b"12345"], "5 bytes arrived"),
        ([header(arrays=[{"name": "a", "dtype": "object", "shape": [4]}]), b"1234"], "'object', which is not allowed"),
        ([header(arrays=[{"name": "a", "dtype": "uint8", "shape": [-4]}]), b"1234"], "header"),
        ([header(arrays=[{"name": "a", "dtype": "uint8", "shape": [1 << 40]}]), b"1234"], "exceeds the limit"),
        ([header(arrays=[{"name": "a", "dtype": "uint8", "shape": [1] * 7}]), b"1"], "header"),
        ([header(arrays=[{"name": "a", "dtype": "uint8", "shape": [4]}] * 2), b"1234", b"1234"], "share a name"),
        ([b"x" * ((1 << 20) + 1)], "header of"),
    ],
)
def test_malformed_messages_are_refused_with_the_reason(
    codec: Codec[DataMessage], parts: list[bytes], reason: str
) -> None:
    with pytest.raises(MalformedMessage, match=reason):
        codec.decode(parts)


def test_objects_cannot_be_sent(codec: Codec[DataMessage]) -> None:
    with pytest.raises(TypeError, match="object"):
        codec.encode(BODY, {"a": np.array([object()])})
