"""Makes arrivals of the messages of DECTRIS stream2."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.detectors.arrivals import (
    Arrival,
    FrameCame,
    FramesCame,
    Malformed,
    SeriesBegan,
    SeriesEnded,
    SeriesHeader,
)
from ptychoflow.acquisition.detectors.compression import Codec, CompressedImage, codecs
from ptychoflow.acquisition.detectors.dectris_fields import (
    SeriesShape,
    count,
    finite,
    positive,
    positive_pair,
    shape,
)
from ptychoflow.acquisition.detectors.dectris_v2.alike import Templates
from ptychoflow.acquisition.detectors.dectris_v2.settings import DectrisV2Settings
from ptychoflow.acquisition.detectors.interface import Decoder, Part
from ptychoflow.acquisition.detectors.message import Run
from ptychoflow.acquisition.scan import Ending
from ptychoflow.streaming.libraries import library

MAX_DEPTH = 16
"""Containers within each other; a message of the protocol has 8."""
MULTI_DIMENSIONAL = 40
COMPRESSED = 56500
TYPED_ARRAYS = {
    64: "u1",
    65: ">u2",
    66: ">u4",
    68: "u1",
    69: "<u2",
    70: "<u4",
    72: "i1",
    73: ">i2",
    74: ">i4",
    77: "<i2",
    78: "<i4",
    81: ">f4",
    85: "<f4",
}
CODECS = {"lz4": Codec.LZ4_HDF5, "bslz4": Codec.BSLZ4, "bszstd": Codec.BSZSTD}
UNIQUE_ID_LENGTH = 64
ARRAYS = (list, tuple)


class DectrisV2Decoder(Decoder):
    """Understands stream2. Every part of a message is taken for a message, as some proxies join them.

    Raises:
        UserError: a library is not installed.
    """

    def __init__(self, settings: DectrisV2Settings) -> None:
        codecs()
        self._cbor2 = library("cbor2", extra="dectris")
        self._maps = (dict, self._cbor2.frozendict)  # abstract classes would take longer to ask than all the rest
        self._settings = settings
        self._shape = SeriesShape()
        self._templates = Templates(most_bytes=settings.max_message_bytes)
        self._understand: dict[object, Callable[[str, Mapping[str, Any]], list[Arrival]]] = {
            "start": self._begin,
            "image": self._frame,
            "end": lambda series, _: [SeriesEnded(series, Ending.COMPLETE)],
        }

    def decode(self, parts: Sequence[Part]) -> Iterable[Arrival]:
        """Return what a message says; kinds of messages that are not needed say nothing."""
        return [arrival for part in parts for arrival in self._arrivals(part)]

    def decode_run(self, run: Run) -> Iterator[tuple[Arrival | FramesCame, float]]:
        """Yield what messages say; frames that differ in nothing but numbers and pixels come together."""
        if len(run) == 1 or (run.parts != 1).any():
            yield from super().decode_run(run)
            return
        bounds, times_s = run.bounds.tolist(), run.received_at_s.tolist()
        place, alike = 0, self._templates.matches(run)
        while place < len(run):
            others = np.flatnonzero(~alike[place:])
            stop = place + int(others[0]) if len(others) else len(run)
            together = self._frames(run.part(place, stop)) if stop > place else None
            if together is not None:
                yield together, times_s[place]
                place = stop
                continue
            part = run.window[bounds[place] : bounds[place + 1]]
            arrivals = self._arrivals(part)
            for arrival in arrivals:
                yield arrival, times_s[place]
            place += 1
            frame = arrivals[0] if arrivals else None
            if isinstance(frame, FrameCame) and self._templates.learns(part, frame):
                alike[place:] = self._templates.matches(run.part(place, len(run)))

    def _frames(self, run: Run) -> FramesCame | None:
        """Return frames of messages that are alike, if their series may have such frames."""
        frames = self._templates.frames(run)
        try:
            self._shape.check(frames.series, frames.images[0].shape_px)
        except ValueError:
            return None
        return frames

    def _arrivals(self, part: Part) -> list[Arrival]:
        try:
            message = self._read(part)
            understand = self._understand.get(message.get("type"))
            return understand(_series(message), message) if understand else []
        except ValueError as error:
            return [Malformed.because(error)]

    def _read(self, part: Part) -> Mapping[str, Any]:
        if len(part) > self._settings.max_message_bytes:
            raise ValueError(f"a message of {len(part)} bytes is above max_message_bytes")
        try:
            message = self._cbor2.loads(
                part,
                tag_hook=lambda tag, immutable: tag,
                max_depth=MAX_DEPTH,
                strict_hashable_types=True,
            )
        except self._cbor2.CBORError as error:
            raise ValueError(f"a message that is not CBOR: {error}") from error
        if not isinstance(message, self._maps) or not isinstance(message.get("type"), str):
            raise ValueError("a message without type")
        return message

    def _begin(self, series: str, message: Mapping[str, Any]) -> list[Arrival]:
        shape_px = shape(message.get("image_size_y"), message.get("image_size_x"))
        self._shape.begin(series, shape_px)
        reasons = []
        try:
            mask = self._mask(message.get("pixel_mask"), shape_px)
        except ValueError as error:
            mask = None
            reasons = [Malformed.because(f"the pixel mask of series {series} is left out: {error}")]
        header = SeriesHeader(
            shape_px=shape_px,
            energy_eV=positive(message.get("incident_energy")),
            detector_distance_m=self._distance(message.get("detector_translation")),
            detector_pixel_size_m=positive_pair(message.get("pixel_size_y"), message.get("pixel_size_x")),
            beam_centre_px=positive_pair(message.get("beam_center_y"), message.get("beam_center_x")),
            angle_deg=self._angle(message.get("goniometer")),
            mask=mask,
            most_frames=count(message.get("number_of_images")) or None,
        )
        return [SeriesBegan(series, header), *reasons]

    def _frame(self, series: str, message: Mapping[str, Any]) -> list[Arrival]:
        number = count(message.get("image_id"))
        if number is None:
            raise ValueError(f"a frame of series {series} without number")
        image = self._image(self._of_channel(message.get("data")))
        self._shape.check(series, image.shape_px)
        return [FrameCame(series, number, image)]

    def _of_channel(self, channels: object) -> object:
        """Return what is there for the channel of the settings, or for the only one."""
        if not isinstance(channels, self._maps) or not channels:
            raise ValueError("a message without data of any channel")
        wanted = self._settings.channel
        if wanted is None and len(channels) > 1:
            raise ValueError(f"the detector sends several channels ({_names(channels)}): set channel to one of them")
        if wanted is not None and wanted not in channels:
            raise ValueError(f"the detector does not send channel {wanted}, but {_names(channels)}")
        return channels[next(iter(channels)) if wanted is None else wanted]

    def _mask(self, channels: object, shape_px: tuple[int, int] | None) -> npt.NDArray[np.bool_] | None:
        if channels is None:
            return None
        image = self._image(self._of_channel(channels))
        if shape_px is not None and image.shape_px != shape_px:
            raise ValueError(f"it has {image.shape_px} pixels, the frames {shape_px}")
        return np.asarray(image.decode() != 0)

    def _image(self, value: object) -> CompressedImage:
        """Return what a multi-dimensional array holds, checked."""
        (shape_px, typed) = _pair(_tagged(value, MULTI_DIMENSIONAL))
        height, width = (count(length) for length in _pair(shape_px))
        dtype = TYPED_ARRAYS.get(getattr(typed, "tag", -1))
        if height is None or width is None or dtype is None:
            raise ValueError("an array of unknown shape or type")
        codec, encoded, shuffled_bytes = _encoded(typed.value)
        return CompressedImage.checked(
            codec,
            encoded,
            (height, width),
            dtype,
            max_frame_px=self._settings.max_frame_px,
            shuffled_bytes=shuffled_bytes,
        )

    def _distance(self, translation: object) -> float | None:
        if not self._settings.translation_is_distance or not isinstance(translation, ARRAYS) or len(translation) != 3:
            return None
        along_beam = finite(translation[2])
        return positive(abs(along_beam)) if along_beam is not None else None

    def _angle(self, goniometer: object) -> float | None:
        axis = self._settings.rotation_axis
        if axis is None or not isinstance(goniometer, self._maps) or not isinstance(goniometer.get(axis), self._maps):
            return None
        return finite(goniometer[axis].get("start"))


def _series(message: Mapping[str, Any]) -> str:
    """Return the name of a series; the number alone begins anew with the detector."""
    number, unique = count(message.get("series_id")), message.get("series_unique_id")
    if number is None:
        raise ValueError(f"a message of type {message['type']} without series")
    if not isinstance(unique, str) or not unique.isascii() or not unique.isalnum() or len(unique) > UNIQUE_ID_LENGTH:
        return str(number)
    return f"{number}-{unique}"


def _names(channels: Iterable[object]) -> str:
    return ", ".join(str(name)[:40] for name in islice(channels, 8))


def _tagged(value: object, tag: int) -> Any:
    if getattr(value, "tag", None) != tag:
        raise ValueError("an array without its tag")
    return value.value  # type: ignore[attr-defined]


def _pair(value: object) -> tuple[Any, Any]:
    if not isinstance(value, ARRAYS) or len(value) != 2:
        raise ValueError("an array that is no pair of shape and values")
    return value[0], value[1]


def _encoded(value: object) -> tuple[Codec, bytes, int | None]:
    """Return how a typed array is encoded, its bytes, and over how many of them bits are shuffled."""
    if isinstance(value, bytes):
        return Codec.NONE, value, None
    content = _tagged(value, COMPRESSED)
    if not isinstance(content, ARRAYS) or len(content) != 3 or not isinstance(content[2], bytes):
        raise ValueError("compressed values that are no algorithm, element size and bytes")
    codec, item = CODECS.get(content[0]) if isinstance(content[0], str) else None, count(content[1])
    if codec is None or item is None:
        raise ValueError(f"values compressed by {content[0]!r} for {content[1]!r} bytes are not known")
    return codec, content[2], None if codec is Codec.LZ4_HDF5 else item
