"""The first version of the DECTRIS stream is understood part by part, however its messages are cut."""

import itertools
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from dectris_v1_messages import (
    CONFIGURATION,
    MASK,
    SETTINGS,
    SHAPE_PX,
    Pixels,
    announced,
    end,
    frame,
    header,
    image,
    part,
)

from ptychoflow.acquisition.detectors.arrivals import Arrival, FrameCame, Malformed, SeriesBegan, SeriesEnded
from ptychoflow.acquisition.detectors.compression import Codec
from ptychoflow.acquisition.detectors.dectris_settings import RotationAxis
from ptychoflow.acquisition.detectors.dectris_v1.connection import DectrisV1Connection
from ptychoflow.acquisition.detectors.dectris_v1.decoder import DectrisV1Decoder
from ptychoflow.acquisition.scan import Ending

CODECS = (Codec.NONE, Codec.LZ4, Codec.BSLZ4)


def decoded(*messages: Sequence[bytes], **changes: Any) -> list[Arrival]:
    decoder = DectrisV1Decoder(SETTINGS.model_copy(update=changes))
    return [arrival for parts in messages for arrival in decoder.decode([memoryview(one) for one in parts])]


def said(arrivals: Sequence[Arrival]) -> list[Any]:
    """Return what arrived, in short: series, numbers of frames, and the kind of what else there is."""
    short: list[Any] = []
    for arrival in arrivals:
        if isinstance(arrival, FrameCame):
            short.append((arrival.series, arrival.number))
        elif isinstance(arrival, Malformed):
            assert "\n" not in arrival.reason
            short.append("malformed")
        else:
            short.append(type(arrival).__name__)
    return short


def began(*messages: Sequence[bytes], **changes: Any) -> SeriesBegan:
    (arrival,) = decoded(*messages, **changes)
    assert isinstance(arrival, SeriesBegan)
    return arrival


def pixels(arrival: Arrival) -> Pixels:
    assert isinstance(arrival, FrameCame), arrival
    decoded_here = arrival.image.decode()
    np.testing.assert_array_equal(decoded_here, pickle.loads(pickle.dumps(arrival.image)).decode())
    return decoded_here


def test_parts_are_read_byte_by_byte() -> None:
    (arrival,) = decoded(
        [
            b'{"htype":"dimage-1.0","series":256,"frame":42,"hash":"fc67f000d08fe6b380ea9434b8362d22"}',
            b'{"htype":"dimage_d-1.0","shape":[3,2],"type":"uint16","encoding":"<","size":12}',
            b"\x01\x00\x02\x00\x03\x00\x04\x00\x05\x00\xff\xff",
            b'{"htype":"dconfig-1.0","start_time":834759834259,"stop_time":834760834280,"real_time":1000000}',
        ]
    )
    assert isinstance(arrival, FrameCame)
    assert (arrival.series, arrival.number) == ("256", 42)
    np.testing.assert_array_equal(pixels(arrival), [[1, 2, 3], [4, 5, 65535]])


def test_a_series_is_told_with_all_that_the_detector_knows() -> None:
    told = began(header(detail="all"), rotation_axis=RotationAxis.OMEGA)
    assert told.series == "7"
    assert told.header.shape_px == SHAPE_PX
    assert told.header.energy_eV == 8000.0
    assert told.header.detector_distance_m == 0.237
    assert told.header.detector_pixel_size_m == (5.5e-05, 7.5e-05)
    assert told.header.beam_centre_px == (11.25, 20.5)
    assert told.header.angle_deg == 30.0
    assert told.header.most_frames == 12
    np.testing.assert_array_equal(told.header.mask, MASK != 0)


def test_less_detail_says_less() -> None:
    basic, none = began(header(detail="basic")), began(header(detail="none"))
    assert (basic.header.energy_eV, basic.header.angle_deg, basic.header.mask) == (8000.0, None, None)
    assert none.header == type(none.header)()


@pytest.mark.parametrize("unset", [0, 0.0, -1, None, "1", True, [], {}])
def test_what_is_not_set_is_not_known(unset: Any) -> None:
    told = began(header(**dict.fromkeys(CONFIGURATION, unset))).header
    assert told == type(told)()


def test_a_region_of_interest_leaves_the_shape_of_frames_open_within_the_detector() -> None:
    assert began(header(roi_mode="4M")).header.shape_px is None
    inside, outside = np.zeros((20, 40), np.uint16), np.zeros((25, 40), np.uint16)
    beginning = header(roi_mode="4M")
    assert said(decoded(beginning, image(0, values=inside))) == ["SeriesBegan", ("7", 0)]
    assert said(decoded(beginning, image(0, values=outside))) == ["SeriesBegan", "malformed"]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_frames_are_decoded_bit_for_bit_and_keep_their_gaps(codec: Codec, dtype: npt.DTypeLike) -> None:
    images = [image(number, codec=codec, values=frame(number, dtype)) for number in range(3)]
    _, *frames, ended = decoded(header(), *images, end())
    for number, arrival in enumerate(frames):
        assert isinstance(arrival, FrameCame)
        assert (arrival.series, arrival.number, arrival.image.dtype) == ("7", number, dtype)
        np.testing.assert_array_equal(pixels(arrival), frame(number, dtype))
    assert ended == SeriesEnded("7", Ending.COMPLETE)


def test_bytes_in_the_other_order_are_read() -> None:
    values = frame(0).astype(">u2")
    (arrival,) = decoded(image(0, codec=Codec.NONE, values=values))
    np.testing.assert_array_equal(pixels(arrival), values)


def test_messages_may_be_cut_anywhere() -> None:
    parts = [*header(detail="all"), *image(0), *image(1, codec=Codec.NONE), *end()]
    expected = ["SeriesBegan", ("7", 0), ("7", 1), "SeriesEnded"]
    assert said(decoded(parts)) == expected
    assert said(decoded(*([one] for one in parts))) == expected
    for first, second in itertools.combinations(range(len(parts)), 2):
        assert said(decoded(parts[:first], parts[first:second], parts[second:])) == expected


def test_a_header_that_is_sent_as_two_messages_or_with_the_first_image_is_read() -> None:
    configured, first = header(), image(0)
    for messages in ([configured[:1], configured[1:], first], [[*configured, *first]]):
        arrivals = decoded(*messages)
        assert said(arrivals) == ["SeriesBegan", ("7", 0)]
        assert isinstance(arrivals[0], SeriesBegan)
        assert arrivals[0].header.energy_eV == 8000.0


@pytest.mark.parametrize("blob", [b'{"htype": "dimage-1.0"}', b"{", b"", b"[1]"])
def test_pixels_that_look_like_an_announcement_are_pixels(blob: bytes) -> None:
    values = np.frombuffer(blob.ljust(960, b" "), np.uint8).reshape(SHAPE_PX)
    (arrival,) = decoded(image(0, codec=Codec.NONE, values=values))
    np.testing.assert_array_equal(pixels(arrival), values)


def test_a_size_that_is_not_announced_is_not_needed() -> None:
    parts = image(0)
    parts[1] = part(htype="dimage_d-1.0", shape=[40, 24], type="uint16", encoding="bs16-lz4<")
    (arrival,) = decoded(parts)
    np.testing.assert_array_equal(pixels(arrival), frame(0))


def test_appendices_are_passed_over() -> None:
    note = b"anything at all"
    arrivals = decoded(
        [*header(), b'{"sample": "x"}'], [*image(0), note], [*image(1), b"{}"], [*header(8, "all"), note]
    )
    assert said(arrivals) == ["SeriesBegan", ("7", 0), ("7", 1), "SeriesBegan"]


def test_a_second_part_without_announcement_is_told() -> None:
    assert said(decoded([*image(0), b"appendix", b"stray"])) == [("7", 0), "malformed"]


@pytest.mark.parametrize("lost", range(4))
def test_a_lost_part_of_a_frame_costs_that_frame_alone(lost: int) -> None:
    broken = image(1)
    del broken[lost]
    arrivals = said(decoded(header(), image(0), broken, image(2), end()))
    numbers = [("7", 0), ("7", 2)] if lost < 3 else [("7", 0), ("7", 1), ("7", 2)]
    assert [one for one in arrivals if isinstance(one, tuple)] == numbers
    assert arrivals.count("malformed") == (1 if lost < 3 else 0)
    assert arrivals[-1] == "SeriesEnded"


@pytest.mark.parametrize("lost", range(8))
def test_a_lost_part_of_the_header_costs_no_frame(lost: int) -> None:
    broken = header(detail="all")
    del broken[lost]
    arrivals = decoded(broken, image(0), image(1), end())
    assert [one for one in said(arrivals) if isinstance(one, tuple)] == [("7", 0), ("7", 1)]
    told = [arrival for arrival in arrivals if isinstance(arrival, SeriesBegan)]
    assert len(told) == (0 if lost == 0 else 1)
    if lost > 1:
        assert told[0].header.energy_eV == 8000.0


def test_frames_come_without_header_and_ends_come_twice() -> None:
    arrivals = decoded(image(5), end(), end(), image(0, 8), end(9))
    assert said(arrivals) == [("7", 5), "SeriesEnded", "SeriesEnded", ("8", 0), "SeriesEnded"]


@pytest.mark.parametrize("stop", range(1, 4))
def test_what_an_abort_leaves_behind_does_not_reach_the_next_series(stop: int) -> None:
    arrivals = decoded(header(), image(0), image(1)[:stop], header(8), image(0, 8), end(8))
    assert [one for one in said(arrivals) if isinstance(one, tuple)][-1] == ("8", 0)
    assert said(arrivals)[-3:] == ["SeriesBegan", ("8", 0), "SeriesEnded"]
    assert said(decoded(image(1)[4 - stop :], header(8), image(0, 8)))[-2:] == ["SeriesBegan", ("8", 0)]


def test_frames_of_a_series_have_one_shape() -> None:
    small = np.zeros((4, 5), np.uint16)
    arrivals = said(decoded(image(0), image(1, values=small), image(2), image(0, 8, values=small)))
    assert arrivals == [("7", 0), "malformed", ("7", 2), ("8", 0)]


def test_a_mask_of_another_shape_is_left_out() -> None:
    other = announced("dpixelmask-1.0", np.zeros((3, 4), np.uint32))
    arrivals = decoded([*header(detail="all")[:2], *other], image(0))
    assert said(arrivals) == ["malformed", "SeriesBegan", ("7", 0)]
    assert isinstance(arrivals[1], SeriesBegan)
    assert arrivals[1].header.mask is None


def frame_as(**changes: Any) -> list[bytes]:
    parts = image(0)
    fields = {"shape": [40, 24], "type": "uint16", "encoding": "bs16-lz4<", "size": len(parts[2])} | changes
    parts[1] = part(htype="dimage_d-1.0", **fields)
    return parts


@pytest.mark.parametrize(
    "parts",
    [
        [b""],
        [b"{"],
        [b"{}"],
        [b"[]"],
        [b'{"htype": "dother-1.0"}'],
        [b'{"htype": ' + b"[" * 100_000],
        [part(htype="dheader-1.0")],
        [part(htype="dseries_end-1.0", series="7")],
        [part(htype="dimage-1.0", series=7)],
        [part(htype="dimage-1.0", series=-7, frame=0)],
        [part(htype="dpixelmask-1.0", shape=[1 << 40, 1 << 40], type="uint32"), b"\0" * 12],
        frame_as(shape=[40]),
        frame_as(shape=[40, -24]),
        frame_as(shape=[1 << 30, 1 << 30]),
        frame_as(shape="40"),
        frame_as(type="uint64"),
        frame_as(type=None),
        frame_as(encoding="zip<"),
        frame_as(encoding="bs16<"),
        frame_as(encoding="bs24-lz4<"),
        frame_as(encoding=1),
        frame_as(encoding="<"),
        frame_as(size=5),
    ],
)
def test_what_is_not_understood_is_told_in_one_line(parts: list[bytes]) -> None:
    assert said(decoded(parts)) == ["malformed"]
    assert said(decoded(parts, header(8), image(0, 8)))[-2:] == ["SeriesBegan", ("8", 0)]


def test_a_configuration_that_is_none_is_told_and_the_series_too() -> None:
    assert said(decoded([header()[0], b"\xff\xff"], image(0))) == ["malformed", "SeriesBegan", ("7", 0)]


def test_bounds_of_the_settings_hold() -> None:
    for changes in ({"max_frame_px": SHAPE_PX[0] * SHAPE_PX[1] - 1}, {"max_message_bytes": 100}):
        (told,) = decoded(image(0), **changes)
        assert isinstance(told, Malformed)
        assert next(iter(changes)) in told.reason


def test_a_damaged_frame_says_so_when_it_is_decoded() -> None:
    parts = image(0)
    parts[2] = parts[2][:12] + b"\xff" * 4 + parts[2][16:]
    (arrival,) = decoded(parts)
    assert isinstance(arrival, FrameCame)
    with pytest.raises(ValueError, match="damaged"):
        arrival.image.decode()


def test_only_a_header_begins_a_series() -> None:
    begins = DectrisV1Connection.begins_series
    assert begins(header())
    assert begins([memoryview(one) for one in header(detail="all")])
    assert begins(header(detail="none"))
    for parts in (image(0), end(), header()[1:], [b""], []):
        assert not begins(parts)
