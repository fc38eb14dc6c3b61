"""DECTRIS stream2 is understood bit for bit, and what cannot be is told in one line."""

import pickle
from typing import Any

import cbor2
import numpy as np
import numpy.typing as npt
import pytest
from dectris_v2_messages import NAME, SETTINGS, SHAPE_PX, Pixels, array, end, frame, image, start

from ptychoflow.acquisition.detectors.arrivals import Arrival, FrameCame, Malformed, SeriesBegan, SeriesEnded
from ptychoflow.acquisition.detectors.compression import Codec
from ptychoflow.acquisition.detectors.dectris_settings import RotationAxis
from ptychoflow.acquisition.detectors.dectris_v2.connection import DectrisV2Connection
from ptychoflow.acquisition.detectors.dectris_v2.decoder import DectrisV2Decoder
from ptychoflow.acquisition.scan import Ending

CODECS = (Codec.NONE, Codec.LZ4_HDF5, Codec.BSLZ4, Codec.BSZSTD)
HANDMADE = (
    b"\xd9\xd9\xf7\xa4"  # self-described map of four
    b"\x64type\x65image"
    b"\x69series_id\x19\x01\x00"
    b"\x68image_id\x18\x2a"
    b"\x64data\xa1\x61a\xd8\x28\x82\x82\x02\x03\xd8\x45\x4c\x01\x00\x02\x00\x03\x00\x04\x00\x05\x00\xff\xff"
)
"""Frame 42 of series 256, 2 × 3 pixels of 16 bit, byte by byte as the protocol is described."""


def decoded(*messages: bytes, **changes: Any) -> list[Arrival]:
    decoder = DectrisV2Decoder(SETTINGS.model_copy(update=changes))
    return [arrival for message in messages for arrival in decoder.decode([memoryview(message)])]


def only(*messages: bytes, **changes: Any) -> Arrival:
    (arrival,) = decoded(*messages, **changes)
    return arrival


def pixels(arrival: Arrival) -> Pixels:
    assert isinstance(arrival, FrameCame), arrival
    decoded_here = arrival.image.decode()
    decoded_elsewhere = pickle.loads(pickle.dumps(arrival.image)).decode()
    np.testing.assert_array_equal(decoded_here, decoded_elsewhere)
    return decoded_here


def reason(arrival: Arrival) -> str:
    assert isinstance(arrival, Malformed), arrival
    assert "\n" not in arrival.reason
    return arrival.reason


def test_a_message_is_read_byte_by_byte() -> None:
    arrival = only(HANDMADE)
    assert isinstance(arrival, FrameCame)
    assert (arrival.series, arrival.number, arrival.image.dtype) == ("256", 42, np.uint16)
    np.testing.assert_array_equal(pixels(arrival), [[1, 2, 3], [4, 5, 65535]])


def test_a_series_is_told_with_all_that_the_detector_knows() -> None:
    mask = np.zeros(SHAPE_PX, np.uint32)
    mask[3, 5] = 16
    for codec in CODECS:
        arrival = only(start(pixel_mask={"threshold_1": array(mask, codec)}))
        assert isinstance(arrival, SeriesBegan)
        header = arrival.header
        assert arrival.series == NAME
        assert header.shape_px == SHAPE_PX
        assert header.energy_eV == 8000.0
        assert header.detector_pixel_size_m == (5.5e-05, 7.5e-05)
        assert header.beam_centre_px == (11.25, 20.5)
        assert header.most_frames == 3
        assert header.mask is not None
        assert np.argwhere(header.mask).tolist() == [[3, 5]]


def test_distance_and_angle_are_taken_where_the_settings_say_what_they_are() -> None:
    plain, stated = only(start()), only(start(), translation_is_distance=True, rotation_axis=RotationAxis.OMEGA)
    assert isinstance(plain, SeriesBegan)
    assert isinstance(stated, SeriesBegan)
    assert (plain.header.detector_distance_m, plain.header.angle_deg) == (None, None)
    assert (stated.header.detector_distance_m, stated.header.angle_deg) == (0.237, 30.0)


@pytest.mark.parametrize("unset", [0, 0.0, -1.0, None, "8000", float("nan"), float("inf"), True, 10**400, [1]])
def test_what_is_not_set_is_not_known(unset: Any) -> None:
    names = ("incident_energy", "pixel_size_x", "beam_center_y", "number_of_images", "image_size_x")
    arrivals = decoded(start(**dict.fromkeys(names, unset), goniometer=unset, detector_translation=unset))
    (began,) = arrivals
    assert isinstance(began, SeriesBegan)
    header = began.header
    assert (header.energy_eV, header.detector_pixel_size_m, header.beam_centre_px) == (None, None, None)
    assert header.shape_px is None
    assert header.most_frames is None


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_frames_are_decoded_bit_for_bit_and_keep_their_gaps(codec: Codec, dtype: npt.DTypeLike) -> None:
    began, *frames, ended = decoded(
        start(), *(image(number, {"threshold_1": array(frame(number, dtype), codec)}) for number in range(3)), end()
    )
    assert isinstance(began, SeriesBegan)
    for number, arrival in enumerate(frames):
        assert isinstance(arrival, FrameCame)
        assert (arrival.series, arrival.number) == (NAME, number)
        assert (arrival.image.shape_px, arrival.image.dtype) == (SHAPE_PX, dtype)
        np.testing.assert_array_equal(pixels(arrival), frame(number, dtype))
    assert ended == SeriesEnded(NAME, Ending.COMPLETE)


@pytest.mark.parametrize("dtype", [">u2", ">u4", np.int16, np.int32, np.float32])
def test_other_numbers_are_read_too(dtype: npt.DTypeLike) -> None:
    values = np.arange(6).reshape(2, 3).astype(dtype)
    np.testing.assert_array_equal(pixels(only(image(0, {"a": array(values)}))), values)


def test_the_channel_of_the_settings_is_taken() -> None:
    first, second = frame(1), frame(2)
    both = image(0, {"threshold_1": array(first), "threshold_2": array(second)})
    np.testing.assert_array_equal(pixels(only(both, channel="threshold_2")), second)
    np.testing.assert_array_equal(pixels(only(both, channel="threshold_1")), first)
    assert "threshold_1, threshold_2" in reason(only(both))
    assert "difference" in reason(only(both, channel="difference"))


def test_the_mask_of_the_channel_is_taken() -> None:
    masks = {"a": array(np.zeros(SHAPE_PX, np.uint32)), "b": array(np.eye(*SHAPE_PX, dtype=np.uint32))}
    began = only(start(pixel_mask=masks), channel="b")
    assert isinstance(began, SeriesBegan)
    assert began.header.mask is not None
    assert began.header.mask.sum() == 24


@pytest.mark.parametrize("mask", [b"\0\0\0\0", "AAAA", {"threshold_1": b"\0\0\0\0"}, {}, [1]])
def test_a_mask_that_is_none_costs_the_mask_alone(mask: Any) -> None:
    began, told = decoded(start(pixel_mask=mask))
    assert isinstance(began, SeriesBegan)
    assert (began.header.mask, began.header.energy_eV) == (None, 8000.0)
    assert "mask" in reason(told)


def test_a_mask_of_another_shape_is_left_out() -> None:
    began, told = decoded(start(pixel_mask={"threshold_1": array(np.zeros((3, 4), np.uint32))}))
    assert isinstance(began, SeriesBegan)
    assert began.header.mask is None
    assert "(3, 4)" in reason(told)


def test_parts_are_messages_wherever_they_are() -> None:
    """Some senders put the first image into the message of the header."""
    arrivals = list(DectrisV2Decoder(SETTINGS).decode([start(), image(0), b"", image(1)]))
    assert [type(arrival) for arrival in arrivals] == [SeriesBegan, FrameCame, Malformed, FrameCame]


def test_frames_come_without_header_and_ends_come_twice() -> None:
    arrivals = decoded(image(5), end(), end(), image(0, series_id=8), start(series_id=9), image(0, series_id=9))
    assert [type(arrival) for arrival in arrivals] == [
        FrameCame,
        SeriesEnded,
        SeriesEnded,
        FrameCame,
        SeriesBegan,
        FrameCame,
    ]
    assert len({arrival.series for arrival in arrivals if isinstance(arrival, FrameCame)}) == 3


def test_a_detector_that_counts_anew_begins_another_series() -> None:
    again = {"series_unique_id": "01HBV3JPF9T4ZDPADX6EMK6XZZ"}
    first, second = decoded(image(0), image(0, **again))
    assert isinstance(first, FrameCame)
    assert isinstance(second, FrameCame)
    assert first.series != second.series


@pytest.mark.parametrize("unique", [None, 7, "", "../../etc", "a b", "x" * 65, "é"])
def test_a_unique_id_that_is_none_is_left_out(unique: Any) -> None:
    assert only(end(series_unique_id=unique)) == SeriesEnded("7", Ending.COMPLETE)


def test_frames_larger_than_the_header_says_are_refused_for_the_whole_series() -> None:
    large = np.zeros((SHAPE_PX[0] + 1, SHAPE_PX[1]), np.uint16)
    arrivals = decoded(start(), image(0, {"a": array(large)}), image(1), image(2, {"a": array(large)}))
    assert [type(arrival) for arrival in arrivals] == [SeriesBegan, Malformed, FrameCame, Malformed]
    assert "header" in reason(arrivals[1])


def test_frames_of_a_series_have_one_shape_though_its_header_was_lost() -> None:
    small = {"threshold_1": array(np.zeros((4, 5), np.uint16))}
    arrivals = decoded(image(0), image(1, small), image(2), image(0, small, series_id=8))
    assert [type(arrival) for arrival in arrivals] == [FrameCame, Malformed, FrameCame, FrameCame]


def with_array(shape: Any, tag: int, value: Any) -> bytes:
    return image(0, {"a": cbor2.CBORTag(40, [shape, cbor2.CBORTag(tag, value)])})


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff",
        b"\xd9\xd9\xf7",
        b"\x9b" + b"\xff" * 8,
        b"\x81" * 1000 + b"\x01",
        cbor2.dumps([1, 2]),
        cbor2.dumps({"type": 1}),
        cbor2.dumps({"type": "image", "image_id": 0}),
        image(0)[:-1],
        image(0, {}),
        image(0, [1]),
        image(0, {"a": b"123456"}),
        image(0, image_id=-1),
        image(0, image_id="0"),
        image(0, image_id=True),
        image(0, series_id=-1),
        image(0, series_id=1 << 70),
        with_array([2, 3], 69, b"\0" * 11),
        with_array([2, 3], 99, b"\0" * 12),
        with_array([2, -3], 69, b"\0" * 12),
        with_array([0, 3], 69, b""),
        with_array([1 << 40, 1 << 40], 69, b"\0" * 12),
        with_array([12], 64, b"\0" * 12),
        with_array([2, 2, 3], 64, b"\0" * 12),
        with_array("ab", 64, b"\0" * 12),
        with_array([2, 3], 69, "text"),
        with_array([2, 3], 69, cbor2.CBORTag(56500, ["bslz4", 2])),
        with_array([2, 3], 69, cbor2.CBORTag(56500, ["zip", 2, b"\0" * 12])),
        with_array([2, 3], 69, cbor2.CBORTag(56500, ["bslz4", 3, b"\0" * 12])),
        with_array([2, 3], 69, cbor2.CBORTag(56500, [["bslz4"], 2, b"\0" * 12])),
        with_array([2, 3], 69, cbor2.CBORTag(99, b"\0" * 12)),
        image(0, {b"1": b"", b"2": b""}),
        image(0, {b"1": b"", "threshold_1": b""}),
    ],
)
def test_what_is_not_understood_is_told_in_one_line(message: bytes) -> None:
    assert reason(only(message))


def test_channels_without_a_name_are_told_as_they_are() -> None:
    channels = {b"1": b"", "b": b""}
    assert "several channels (b'1', b)" in reason(only(image(0, channels)))
    assert "does not send channel c, but b'1', b" in reason(only(image(0, channels), channel="c"))


def test_bounds_of_the_settings_hold() -> None:
    assert "max_frame_px" in reason(only(image(0), max_frame_px=SHAPE_PX[0] * SHAPE_PX[1] - 1))
    assert "max_message_bytes" in reason(only(image(0), max_message_bytes=100))


def test_other_kinds_of_messages_say_nothing() -> None:
    """Jungfraujoch sends calibration and metadata as well."""
    assert decoded(cbor2.dumps({"type": "metadata", "series_id": 7})) == []


def test_only_a_start_begins_a_series() -> None:
    begins = DectrisV2Connection.begins_series
    assert begins([start()])
    assert begins([memoryview(start())])
    assert begins([image(0), start()])
    assert begins([cbor2.dumps(cbor2.CBORTag(55799, {"type": "start"}))])
    for parts in ([image(0)], [end()], [b""], []):
        assert not begins(parts)
