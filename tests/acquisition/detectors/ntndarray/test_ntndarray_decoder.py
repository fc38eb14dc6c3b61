"""What is made of NTNDArrays: frames, numbers, positions; and what is refused."""

import itertools
import math
import pickle

import numpy as np
import pytest

from ptychoflow.acquisition.detectors.arrivals import (
    FrameCame,
    Malformed,
    PositionsBegan,
    PositionsCame,
    PositionsEnded,
    SeriesBegan,
    SeriesEnded,
)
from ptychoflow.acquisition.detectors.compression import encode as encode_pixels
from ptychoflow.acquisition.detectors.ntndarray.decoder import CODECS, PVDATA_TYPES, NtndarrayDecoder
from ptychoflow.acquisition.detectors.ntndarray.messages import Began, Ended, Frame, encode
from ptychoflow.acquisition.detectors.ntndarray.settings import (
    Compression,
    FrameNumber,
    NtndarraySettings,
    PositionAttributes,
    SeriesByPause,
)
from ptychoflow.acquisition.detectors.series_table import SeriesTable
from ptychoflow.acquisition.detectors.settings import JoinSettings
from ptychoflow.acquisition.scan import Ending

FRAME = np.arange(6, dtype=np.uint16).reshape(2, 3)
OF_THE_SERIES = {"Angle": 12.5, "Energy": 8000}


def settings(**changes):
    return NtndarraySettings(
        **{"pv": "A", "series": SeriesByPause(pause_s=1), "number_from": FrameNumber.UNIQUE_ID} | changes
    )


def message(frame=FRAME, *, pixels=None, **changes):
    header = {
        "series": "s", "unique_id": 7, "sizes_px": list(frame.shape[::-1]), "dtype": frame.dtype.str, "codec": "",
        "codec_type": None, "uncompressed_bytes": frame.nbytes, "attributes": OF_THE_SERIES,
    }  # fmt: skip
    return [encode(Frame(**header | changes)), frame.tobytes() if pixels is None else pixels]


def test_a_frame_is_told_with_its_series_and_decoded_x_last():
    decoder = NtndarrayDecoder(settings(angle_attribute="Angle", energy_attribute="Energy"))
    assert decoder.decode([encode(Began("s"))]) == []
    began, came = decoder.decode([memoryview(part) for part in message()])
    assert isinstance(began, SeriesBegan)
    assert (began.series, began.header.shape_px, began.header.angle_deg) == ("s", (2, 3), 12.5)
    assert began.header.energy_eV == 8000.0
    assert isinstance(came, FrameCame)
    assert (came.series, came.number, came.image.shape_px, came.image.dtype) == ("s", 7, (2, 3), np.uint16)
    np.testing.assert_array_equal(came.image.decode(), FRAME)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(came.image)).decode(), FRAME)
    (second,) = decoder.decode(message(unique_id=8))
    assert second.number == 8
    assert decoder.decode([encode(Ended("s", aborted=False))]) == [SeriesEnded("s", Ending.COMPLETE)]
    assert decoder.decode([encode(Ended("s", aborted=True))]) == [SeriesEnded("s", Ending.ABORTED)]


@pytest.mark.parametrize("energy", [0, -8000.0, math.inf, math.nan, "8000"])
def test_an_energy_that_cannot_be_is_not_said(energy):
    decoder = NtndarrayDecoder(settings(angle_attribute="Angle", energy_attribute="Energy"))
    (began, _) = decoder.decode(message(attributes={"Angle": -12.5, "Energy": energy}))
    assert (began.header.energy_eV, began.header.angle_deg) == (None, -12.5)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "f4"])
def test_every_type_of_pixels_is_read(dtype):
    frame = np.array([[0, 1, 2], [3, 4, 127]], dtype)
    (_, came) = NtndarrayDecoder(settings()).decode(message(frame))
    assert came.image.dtype == dtype
    np.testing.assert_array_equal(came.image.decode(), frame)


@pytest.mark.parametrize("compression", [one for one in Compression if one])
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "f4"])
def test_every_compression_is_read_with_the_type_that_its_parameters_say(compression, dtype):
    frame = np.random.default_rng(0).poisson(3, (100, 70)).astype(dtype)
    pixels = encode_pixels(frame, CODECS[compression], header=False)
    compressed = message(frame, pixels=pixels, dtype="|u1", codec=compression, codec_type=PVDATA_TYPES[frame.dtype.str])
    (_, came) = NtndarrayDecoder(settings()).decode(compressed)
    np.testing.assert_array_equal(came.image.decode(), frame)
    assert came.image.decode().dtype == frame.dtype


@pytest.mark.parametrize("compression", [Compression.BLOSC, Compression.ZLIB])
def test_damaged_pixels_are_said_when_they_are_decoded(compression):
    frame = np.random.default_rng(0).poisson(3, (100, 70)).astype("u2")
    pixels = encode_pixels(frame, CODECS[compression])
    larger = encode_pixels(np.zeros((1000, 7000), "u2"), CODECS[compression])
    for damaged in (pixels[:-9], b"", pixels[:7], b"\xff" * len(pixels), larger):
        parts = message(frame, pixels=damaged, codec=compression, codec_type=6)
        (*_, came) = NtndarrayDecoder(settings()).decode(parts)
        with pytest.raises(ValueError, match="damaged"):
            came.image.decode()


def test_dimensions_of_one_pixel_are_no_colours():
    (_, came) = NtndarrayDecoder(settings()).decode(message(sizes_px=[3, 2, 1]))
    assert came.image.shape_px == (2, 3)


def test_numbers_count_from_the_first_frame_of_each_series_even_where_the_counter_wraps():
    decoder = NtndarrayDecoder(settings(number_from=FrameNumber.FROM_FIRST))
    ids = [("a", 2**31 - 2), ("a", 2**31 - 1), ("a", -(2**31)), ("b", 50), ("b", 53)]
    came = [decoder.decode(message(series=series, unique_id=number))[-1] for series, number in ids]
    assert [(one.series, one.number) for one in came] == [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 3)]


def test_numbers_and_positions_come_from_attributes():
    positions = PositionAttributes(y="SampleY", x="SampleX", unit="um")
    decoder = NtndarrayDecoder(settings(number_from="attribute", number_attribute="N", positions=positions))
    first = decoder.decode(message(attributes={"N": 41.0, "SampleY": 2.0, "SampleX": -3}))
    assert first[1] == PositionsBegan("s (1)", "s")
    assert (first[2].number, first[3].run, first[3].numbers.tolist()) == (41, "s (1)", [41])
    np.testing.assert_allclose(first[3].positions_m, [[2e-6, -3e-6]])
    came, position = decoder.decode(message(attributes={"N": 42, "SampleX": "no number"}))
    assert came.number == 42
    assert isinstance(position, PositionsCame)
    assert np.isnan(position.positions_m).all()
    assert decoder.decode([encode(Ended("s", aborted=True))])[1] == PositionsEnded("s (1)", Ending.ABORTED)


@pytest.mark.parametrize("ends", [True, False], ids=["", "and the receiver was away when series ended"])
def test_a_series_whose_name_comes_again_is_another_one(ends):
    """A scan's number that begins anew with its IOC; frames are numbered, and joined to positions, as of any other."""
    positions = PositionAttributes(y="SampleY", x="SampleX", unit="um")
    decoder = NtndarrayDecoder(settings(number_from="from_first", positions=positions))
    table = SeriesTable(JoinSettings(first_frame=0, first_sample=0, samples_per_frame=1), idle_s=60.0)
    begun, ids = [], itertools.count(100)
    for at_s, (series, before) in enumerate([("1", None), ("2", "1"), ("1", "2")]):
        parts = [] if before is None or not ends else [[encode(Ended(before, aborted=False))]]
        parts += [
            message(series=series, unique_id=next(ids), attributes={"SampleY": 1, "SampleX": at_s}) for _ in "123"
        ]
        for arrival in [one for part in parts for one in decoder.decode(part)]:
            begun += [arrival.series] if isinstance(arrival, SeriesBegan) else []
            table.apply(arrival, at_s=0.1 * at_s)
    assert begun == ["1", "2", "1"]
    for place in range(3):
        series = table.first
        placed = series.joiner.placed.take(4)
        assert (placed.triggers, placed.positions_m) == ([0, 1, 2], [(1e-6, place * 1e-6)] * 3)
        table.let_go(series)
    assert not table.late


def test_a_first_frame_without_a_number_does_not_keep_its_series_from_beginning():
    decoder = NtndarrayDecoder(settings(number_from="attribute", number_attribute="N"))
    assert [type(one) for one in decoder.decode(message(attributes={}))] == [Malformed]
    assert [type(one) for one in decoder.decode(message(attributes={"N": 1}))] == [SeriesBegan, FrameCame]


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([], "no parts"),
        ([b"\xc1"], "header"),
        ([b"\x91" * 5000 + b"\x90"], "header"),
        (message()[:1], "not 1 parts"),
        (message(pixels=b"1"), "12 bytes, not 1"),
        (message(sizes_px=[2**40, 2**40]), "out of bounds"),
        (message(sizes_px=[0, 0]), "two dimensions"),
        (message(sizes_px=[-2, -3]), "two dimensions"),
        (message(sizes_px=[3]), "two dimensions"),
        (message(sizes_px=[3, 2, 3]), "two dimensions"),
        (message(dtype="|O"), "type"),
        (message(dtype=">u2"), "type"),
        (message(codec="nobody's"), "compression"),
        (message(codec="lz4"), "type"),
        (message(codec="lz4", codec_type=10), "type"),
        (message(unique_id=2**63), "number"),
        (message(series="s" * 1000), "too long"),
    ],
)
def test_what_cannot_be_is_malformed(parts, reason):
    (arrival,) = NtndarrayDecoder(settings()).decode(parts)
    assert isinstance(arrival, Malformed)
    assert reason in arrival.reason
    assert "\n" not in arrival.reason


@pytest.mark.parametrize("number", [None, "4", 1.5, math.nan, 1e300])
def test_a_frame_without_its_number_is_malformed(number):
    decoder = NtndarrayDecoder(settings(number_from="attribute", number_attribute="N"))
    (arrival,) = decoder.decode(message(attributes={} if number is None else {"N": number}))
    assert isinstance(arrival, Malformed)


def test_the_number_must_be_stated_and_its_attribute_named():
    for wrong in ({"number_from": "attribute"}, {"number_attribute": "N"}):
        with pytest.raises(ValueError, match="number_attribute"):
            settings(**wrong)
