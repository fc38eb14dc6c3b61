"""A simulated detector that speaks the first version of the DECTRIS stream."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from ptychoflow.acquisition.detectors.compression import Codec, codecs, encode
from ptychoflow.acquisition.detectors.dectris_settings import HeaderDetail
from ptychoflow.acquisition.detectors.dectris_simulator import DectrisSimulator, Pixels, SimulatedSeries
from ptychoflow.acquisition.detectors.dectris_v1.settings import DectrisV1SimulatorSettings, StreamCompression
from ptychoflow.acquisition.detectors.interface import Part
from ptychoflow.acquisition.scan import Perspective

COUNT_RATES = 1000
"""Entries of the table that corrects count rates."""


class DectrisV1Simulator(DectrisSimulator):
    """Sends scans as a detector does with the first version of the stream.

    Raises:
        UserError: it cannot listen where the settings say, or a library is not installed.
    """

    def __init__(self, settings: DectrisV1SimulatorSettings) -> None:
        codecs()
        super().__init__(settings)
        self._settings = settings

    def _beginning(self, perspective: Perspective, series: SimulatedSeries) -> Sequence[Part]:
        detail = self._settings.header_detail
        parts: list[Part] = [_json("dheader-1.0", header_detail=detail.value, series=series.number)]
        if detail is HeaderDetail.NONE:
            return parts
        parts.append(msgspec.json.encode(self._configuration(perspective, series)))
        if detail is HeaderDetail.ALL:
            shape = perspective.geometry.frame_shape_px
            mask = np.zeros(shape, bool) if perspective.mask is None else perspective.mask
            rates = np.tile(np.arange(COUNT_RATES, dtype=np.float32), (2, 1)).T
            parts += _announced("dflatfield-1.0", np.ones(shape, np.float32))
            parts += _announced("dpixelmask-1.0", mask.astype(np.uint32))
            parts += _announced("dcountrate_table-1.0", rates)
        return parts

    def _image(self, index: int, frame: Pixels, series: SimulatedSeries) -> Sequence[Part]:
        codec, encoding = self._encoding(series.dtype.itemsize)
        encoded = encode(frame, codec)
        now = series.elapsed_ns
        return [
            _json("dimage-1.0", series=series.number, frame=index, hash=_hash(encoded)),
            _json(
                "dimage_d-1.0",
                shape=list(reversed(frame.shape)),
                type=frame.dtype.name,
                encoding=encoding,
                size=len(encoded),
            ),
            encoded,
            _json("dconfig-1.0", real_time=0, start_time=now, stop_time=now),
        ]

    def _ending(self, series: SimulatedSeries) -> Sequence[Part]:
        return [_json("dseries_end-1.0", series=series.number)]

    def _encoding(self, item: int) -> tuple[Codec, str]:
        compression = self._settings.compression
        if compression is StreamCompression.NONE:
            return Codec.NONE, "<"
        if compression is StreamCompression.LZ4:
            return Codec.LZ4, "lz4<"
        return Codec.BSLZ4, f"bs{item * 8}-lz4<"

    def _configuration(self, perspective: Perspective, series: SimulatedSeries) -> dict[str, Any]:
        geometry = perspective.geometry
        height, width = geometry.frame_shape_px
        return {
            "beam_center_x": float(width // 2),
            "beam_center_y": float(height // 2),
            "bit_depth_image": series.dtype.itemsize * 8,
            "compression": self._settings.compression.value,
            "description": "simulated detector",
            "detector_distance": geometry.detector_distance_m,
            "nimages": len(perspective),
            "ntrigger": 1,
            "omega_start": perspective.angle_deg,
            "photon_energy": geometry.energy_eV,
            "roi_mode": "disabled",
            "trigger_mode": "exts",
            "wavelength": geometry.wavelength_m * 1e10,
            "x_pixel_size": geometry.detector_pixel_size_m[1],
            "x_pixels_in_detector": width,
            "y_pixel_size": geometry.detector_pixel_size_m[0],
            "y_pixels_in_detector": height,
        }


def _json(htype: str, **fields: Any) -> bytes:
    return msgspec.json.encode({"htype": htype, **fields})


def _hash(encoded: bytes) -> str:
    """Return what receivers may check a blob by; some refuse a frame without it."""
    return hashlib.md5(encoded, usedforsecurity=False).hexdigest()


def _announced(htype: str, array: Pixels) -> list[Part]:
    return [_json(htype, shape=list(reversed(array.shape)), type=array.dtype.name), encode(array, Codec.NONE)]
