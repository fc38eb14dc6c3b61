"""A simulated detector that speaks DECTRIS stream2."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np

from ptychoflow.acquisition.detectors.compression import Codec, codecs, encode
from ptychoflow.acquisition.detectors.dectris_settings import HeaderDetail
from ptychoflow.acquisition.detectors.dectris_simulator import DectrisSimulator, Pixels, SimulatedSeries
from ptychoflow.acquisition.detectors.dectris_v2.decoder import COMPRESSED, MULTI_DIMENSIONAL
from ptychoflow.acquisition.detectors.dectris_v2.settings import DectrisV2SimulatorSettings, StreamCompression
from ptychoflow.acquisition.detectors.interface import Part
from ptychoflow.acquisition.scan import Perspective
from ptychoflow.streaming.libraries import library

SELF_DESCRIBED = 55799
TYPED_ARRAYS = {"uint8": 64, "uint16": 69, "uint32": 70, "float32": 85}
CODECS = {
    StreamCompression.NONE: Codec.NONE,
    StreamCompression.LZ4: Codec.LZ4_HDF5,
    StreamCompression.BSLZ4: Codec.BSLZ4,
    StreamCompression.BSZSTD: Codec.BSZSTD,
}
NANOSECONDS = 1_000_000_000


class DectrisV2Simulator(DectrisSimulator):
    """Sends scans as a detector does with stream2.

    Raises:
        UserError: it cannot listen where the settings say, or a library is not installed.
    """

    def __init__(self, settings: DectrisV2SimulatorSettings) -> None:
        codecs()
        self._cbor2 = library("cbor2", extra="dectris")
        super().__init__(settings)
        self._settings = settings
        self._unique_id = ""

    def _beginning(self, perspective: Perspective, series: SimulatedSeries) -> Sequence[Part]:
        self._unique_id = uuid.uuid4().hex
        geometry = perspective.geometry
        height, width = geometry.frame_shape_px
        message = self._message("start", series) | {
            "image_size_x": width,
            "image_size_y": height,
            "image_dtype": series.dtype.name,
            "number_of_images": len(perspective),
            "channels": [self._settings.channel],
            "beam_center_x": float(width // 2),
            "beam_center_y": float(height // 2),
            "pixel_size_x": geometry.detector_pixel_size_m[1],
            "pixel_size_y": geometry.detector_pixel_size_m[0],
            "incident_energy": geometry.energy_eV,
            "incident_wavelength": geometry.wavelength_m * 1e10,
            "detector_translation": [0.0, 0.0, -geometry.detector_distance_m],
            "detector_description": "simulated detector",
            "goniometer": {"omega": {"start": perspective.angle_deg, "increment": 0.0}},
            "saturation_value": int(np.iinfo(series.dtype).max) - 1,  # type: ignore[type-var]
        }
        if self._settings.header_detail is HeaderDetail.ALL:
            mask = np.zeros((height, width), bool) if perspective.mask is None else perspective.mask
            message |= {
                "pixel_mask": {self._settings.channel: self._array(mask.astype(np.uint32))},
                "flatfield": {self._settings.channel: self._array(np.ones((height, width), np.float32))},
            }
        return [self._cbor2.dumps(message)]

    def _image(self, index: int, frame: Pixels, series: SimulatedSeries) -> Sequence[Part]:
        now = [series.elapsed_ns, NANOSECONDS]
        message = self._message("image", series) | {
            "image_id": index,
            "real_time": [0, NANOSECONDS],
            "start_time": now,
            "stop_time": now,
            "data": {self._settings.channel: self._array(frame)},
        }
        return [self._cbor2.dumps(self._cbor2.CBORTag(SELF_DESCRIBED, message))]

    def _ending(self, series: SimulatedSeries) -> Sequence[Part]:
        return [self._cbor2.dumps(self._cbor2.CBORTag(SELF_DESCRIBED, self._message("end", series)))]

    def _message(self, kind: str, series: SimulatedSeries) -> dict[str, Any]:
        return {"type": kind, "series_id": series.number, "series_unique_id": self._unique_id}

    def _array(self, array: Pixels) -> Any:
        tag = self._cbor2.CBORTag
        codec = CODECS[self._settings.compression]
        encoded: Any = encode(array, codec)
        if codec is not Codec.NONE:
            encoded = tag(COMPRESSED, [self._settings.compression.value, array.dtype.itemsize, encoded])
        return tag(MULTI_DIMENSIONAL, [list(array.shape), tag(TYPED_ARRAYS[array.dtype.name], encoded)])
