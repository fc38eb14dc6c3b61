"""Parts of the first version of the DECTRIS stream, as detectors send them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
from mutated_messages import Stream

from ptychoflow.acquisition.detectors.compression import Codec, encode
from ptychoflow.acquisition.detectors.dectris_v1.decoder import DectrisV1Decoder
from ptychoflow.acquisition.detectors.dectris_v1.settings import DectrisV1Settings

SETTINGS = DectrisV1Settings(host="detector")
SHAPE_PX = (24, 40)
CONFIGURATION = {
    "beam_center_x": 20.5,
    "beam_center_y": 11.25,
    "detector_distance": 0.237,
    "nimages": 4,
    "ntrigger": 3,
    "omega_start": 30.0,
    "photon_energy": 8000.0,
    "roi_mode": "disabled",
    "x_pixel_size": 7.5e-05,
    "x_pixels_in_detector": SHAPE_PX[1],
    "y_pixel_size": 5.5e-05,
    "y_pixels_in_detector": SHAPE_PX[0],
}
MASK = np.eye(*SHAPE_PX, dtype=np.uint32)
Pixels = npt.NDArray[np.generic]


def frame(number: int, dtype: npt.DTypeLike = np.uint16) -> Pixels:
    """Return a frame with gap pixels."""
    values = np.random.default_rng(number).poisson(2.0, SHAPE_PX).astype(dtype)
    values[10:12] = np.iinfo(dtype).max
    return values


def part(**fields: Any) -> bytes:
    """Return a part of JSON."""
    return json.dumps(fields).encode()


def header(series: int = 7, detail: str = "basic", **changes: Any) -> list[bytes]:
    """Return the parts that begin a series."""
    parts = [part(header_detail=detail, series=series, htype="dheader-1.0")]
    if detail != "none":
        parts.append(part(**(CONFIGURATION | changes)))
    if detail == "all":
        parts += announced("dflatfield-1.0", np.ones(SHAPE_PX, np.float32))
        parts += announced("dpixelmask-1.0", MASK)
        parts += announced("dcountrate_table-1.0", np.ones((1000, 2), np.float32))
    return parts


def announced(htype: str, array: Pixels) -> list[bytes]:
    """Return a table of the header with its announcement."""
    return [part(htype=htype, shape=list(array.shape[::-1]), type=array.dtype.name), array.tobytes()]


def image(number: int, series: int = 7, codec: Codec = Codec.BSLZ4, values: Pixels | None = None) -> list[bytes]:
    """Return the parts of a frame."""
    pixels = frame(number) if values is None else values
    encoded = encode(pixels, codec)
    order = ">" if pixels.dtype.byteorder == ">" else "<"
    encoding = {Codec.NONE: "", Codec.LZ4: "lz4", Codec.BSLZ4: f"bs{pixels.dtype.itemsize * 8}-lz4"}[codec] + order
    return [
        part(htype="dimage-1.0", series=series, frame=number, hash="fc67f000d08fe6b380ea9434b8362d22"),
        part(
            htype="dimage_d-1.0",
            shape=list(pixels.shape[::-1]),
            type=pixels.dtype.newbyteorder("=").name,
            encoding=encoding,
            size=len(encoded),
        ),
        encoded,
        part(htype="dconfig-1.0", start_time=0, stop_time=4317460, real_time=4317460),
    ]


def end(series: int = 7) -> list[bytes]:
    """Return the part that ends a series."""
    return [part(htype="dseries_end-1.0", series=series)]


def _messages() -> list[list[bytes]]:
    images = [image(number, codec=codec) for number, codec in enumerate((Codec.NONE, Codec.LZ4, Codec.BSLZ4))]
    return [header(detail="all"), *images, end(), header(8), image(0, 8), end(8)]


STREAM = Stream(lambda: DectrisV1Decoder(SETTINGS), _messages)
