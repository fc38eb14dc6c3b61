"""Messages of DECTRIS stream2, as detectors send them."""

from __future__ import annotations

from typing import Any

import cbor2
import numpy as np
import numpy.typing as npt
from mutated_messages import Stream

from ptychoflow.acquisition.detectors.compression import Codec, encode
from ptychoflow.acquisition.detectors.dectris_v2.decoder import DectrisV2Decoder
from ptychoflow.acquisition.detectors.dectris_v2.settings import DectrisV2Settings

SETTINGS = DectrisV2Settings(host="detector")
SERIES = {"series_id": 7, "series_unique_id": "01HBV3JPF9T4ZDPADX6EMK6XMZ"}
NAME = "7-01HBV3JPF9T4ZDPADX6EMK6XMZ"
SHAPE_PX = (24, 40)
TAGS = {"uint8": 64, "uint16": 69, "uint32": 70, ">u2": 65, ">u4": 66, "int16": 77, "int32": 78, "float32": 85}
ALGORITHMS = {Codec.LZ4_HDF5: "lz4", Codec.BSLZ4: "bslz4", Codec.BSZSTD: "bszstd"}
Pixels = npt.NDArray[np.generic]


def frame(number: int, dtype: npt.DTypeLike = np.uint16) -> Pixels:
    """Return a frame with gap pixels."""
    values = np.random.default_rng(number).poisson(2.0, SHAPE_PX).astype(dtype)
    values[10:12] = np.iinfo(dtype).max
    return values


def array(values: Pixels, codec: Codec = Codec.NONE) -> Any:
    """Return what the protocol makes of an array."""
    encoded: Any = encode(values, codec)
    if codec is not Codec.NONE:
        encoded = cbor2.CBORTag(56500, [ALGORITHMS[codec], values.dtype.itemsize, encoded])
    name = values.dtype.str if values.dtype.byteorder == ">" else values.dtype.name
    return cbor2.CBORTag(40, [list(values.shape), cbor2.CBORTag(TAGS[name], encoded)])


def start(**changes: Any) -> bytes:
    """Return the message that begins a series."""
    fields = {
        "type": "start",
        **SERIES,
        "arm_date": cbor2.CBORTag(0, "2026-11-29T03:00:00.000+01:00"),
        "beam_center_x": 20.5,
        "beam_center_y": 11.25,
        "channels": ["threshold_1"],
        "detector_translation": [0.1, 0.2, -0.237],
        "goniometer": {"omega": {"start": 30.0, "increment": 0.1}},
        "image_size_x": SHAPE_PX[1],
        "image_size_y": SHAPE_PX[0],
        "image_dtype": "uint16",
        "incident_energy": 8000.0,
        "number_of_images": 3,
        "pixel_size_x": 7.5e-05,
        "pixel_size_y": 5.5e-05,
    }
    return cbor2.dumps(fields | changes)


def image(number: int, data: Any = None, **changes: Any) -> bytes:
    """Return the message with a frame; `data` is what there is of every channel."""
    channels = {"threshold_1": array(frame(number), Codec.BSLZ4)} if data is None else data
    fields = {
        "type": "image",
        **SERIES,
        "image_id": number,
        "real_time": [215873, 50000000],
        "series_date": cbor2.CBORTag(0, "2026-11-29T03:00:00.000+01:00"),
        "start_time": [0, 50000000],
        "stop_time": [215873, 50000000],
        "data": channels,
    }
    return cbor2.dumps(cbor2.CBORTag(55799, fields | changes))


def end(**changes: Any) -> bytes:
    """Return the message that ends a series."""
    return cbor2.dumps(cbor2.CBORTag(55799, {"type": "end", **SERIES, **changes}))


def _messages() -> list[list[bytes]]:
    mask = {"threshold_1": array(np.eye(*SHAPE_PX, dtype=np.uint32), Codec.BSLZ4)}
    codecs = (Codec.NONE, Codec.LZ4_HDF5, Codec.BSLZ4, Codec.BSZSTD)
    images = [image(number, {"threshold_1": array(frame(number), codec)}) for number, codec in enumerate(codecs)]
    return [[start(pixel_mask=mask, flatfield=mask)], *([one] for one in images), [end()]]


STREAM = Stream(lambda: DectrisV2Decoder(SETTINGS), _messages)


def _alike() -> list[list[bytes]]:
    """Return frames of one codec after the other, with numbers of one, two and three bytes."""
    series: list[list[bytes]] = [[start()]]
    for codec, first in ((Codec.NONE, 10), (Codec.BSLZ4, 250), (Codec.BSZSTD, 65530)):
        series += [
            [image(number, {"threshold_1": array(frame(number), codec)}, start_time=[number, 50000000])]
            for number in range(first, first + 40)
        ]
    extra = {"user_data": {"note": "behind the pixels"}}
    series += [[image(number, **extra)] for number in range(70000, 70020)]
    return [*series, [end()]]


ALIKE = Stream(lambda: DectrisV2Decoder(SETTINGS), _alike, in_runs=True)
