"""NTNDArrays as our connection flattens them, to be mutated."""

from collections.abc import Sequence

import numpy as np
from mutated_messages import Message, Stream

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
from ptychoflow.acquisition.readers.units import LengthUnit

SETTINGS = NtndarraySettings(
    pv="A",
    series=SeriesByPause(pause_s=1.0),
    number_from=FrameNumber.ATTRIBUTE,
    number_attribute="FrameNumber",
    positions=PositionAttributes(y="SampleY", x="SampleX", unit=LengthUnit.MICROMETRE),
    angle_attribute="Angle",
)


def messages() -> Sequence[Message]:
    """Return a series with a frame of every compression and of every type of pixels."""
    random = np.random.default_rng(0)
    sent: list[Message] = [[encode(Began("1"))]]
    for index, (compression, codec) in enumerate(CODECS.items()):
        for dtype, number in PVDATA_TYPES.items():
            frame = random.poisson(2, (24, 40)).astype(dtype)
            plain = compression is Compression.NONE
            header = Frame(
                series="1",
                unique_id=index,
                sizes_px=[40, 24],
                dtype=dtype if plain else "|u1",
                codec=compression,
                codec_type=None if plain else number,
                uncompressed_bytes=frame.nbytes,
                attributes={"FrameNumber": index, "SampleY": 1.5, "SampleX": -2, "Angle": 30.0, "Name": "x"},
            )
            sent.append([encode(header), encode_pixels(frame, codec, header=False)])
    return [*sent, [encode(Ended("1", aborted=False))]]


STREAM = Stream(lambda: NtndarrayDecoder(SETTINGS), messages)
