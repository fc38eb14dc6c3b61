"""Makes arrivals of the parts of the first version of the DECTRIS stream."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any

import msgspec
import numpy as np

from ptychoflow.acquisition.detectors.arrivals import (
    Arrival,
    FrameCame,
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
from ptychoflow.acquisition.detectors.dectris_settings import HeaderDetail
from ptychoflow.acquisition.detectors.dectris_v1.settings import DectrisV1Settings
from ptychoflow.acquisition.detectors.interface import Decoder, Part
from ptychoflow.acquisition.scan import Ending

LARGEST_JSON_BYTES = 1 << 20
"""The configuration, the longest of all, has some thousand."""
HTYPE = re.compile(r"d?(header|image|image_d|config|series_end|flatfield|pixelmask|countrate_table)-")
ENCODING = re.compile(r"(?:bs(8|16|32|64)-)?(lz4)?([<>])")
DTYPES = {"uint8": "u1", "uint16": "u2", "uint32": "u4", "int8": "i1", "int16": "i2", "int32": "i4", "float32": "f4"}
Announcement = Mapping[str, Any]


class _Next(Enum):
    """What a part is that announces nothing and was not announced."""

    NOTHING = auto()
    CONFIGURATION = auto()
    APPENDIX = auto()
    """Of the beamline's own; there may be one."""


@dataclass(frozen=True)
class _Blob:
    """An announced part that is not JSON."""

    of: str
    take: Callable[[Part], Iterator[Arrival]]
    size: int | None
    """Bytes, where they are known."""


class DectrisV1Decoder(Decoder):
    """Understands the first version of the stream, part by part: senders and proxies cut messages differently.

    Raises:
        UserError: a library is not installed.
    """

    def __init__(self, settings: DectrisV1Settings) -> None:
        codecs()
        self._settings = settings
        self._shape = SeriesShape()
        self._next = _Next.NOTHING
        self._blob: _Blob | None = None
        self._frame: tuple[str, int] | None = None
        self._series: str | None = None
        self._detail: object = None
        self._header: SeriesHeader | None = None
        """Of a series that began and was not told yet."""
        self._understand: dict[str, Callable[[Announcement], Iterator[Arrival]]] = {
            "header": self._begin,
            "image": self._number_frame,
            "image_d": self._describe_frame,
            "config": self._end_frame,
            "series_end": self._end,
            "pixelmask": self._describe_mask,
            "flatfield": self._describe_unwanted,
            "countrate_table": self._describe_unwanted,
        }

    def decode(self, parts: Sequence[Part]) -> Iterable[Arrival]:
        """Return what a message says."""
        return [arrival for part in parts for arrival in self._arrivals(part)]

    def _arrivals(self, part: Part) -> Iterator[Arrival]:
        try:
            yield from self._understood(part)
        except ValueError as error:
            yield Malformed.because(error)

    def _understood(self, part: Part) -> Iterator[Arrival]:
        """Yield what a part says. An announcement in place of a blob tells that the blob was lost."""
        expected, blob = self._next, self._blob
        self._next, self._blob = _Next.NOTHING, None
        found = None if blob is not None and len(part) == blob.size else _announcement(part)
        if found is not None:
            if blob is not None:
                yield Malformed.because(f"{blob.of} was lost")
            yield from self._understand[found[0]](found[1])
        elif blob is not None:
            if blob.size not in (None, len(part)):
                raise ValueError(f"{blob.of} has {len(part)} bytes, not {blob.size}")
            yield from blob.take(part)
        elif expected is _Next.CONFIGURATION:
            yield from self._configure(part)
        elif expected is _Next.NOTHING:
            raise ValueError(f"a part of {len(part)} bytes that nothing announced")

    def _begin(self, announcement: Announcement) -> Iterator[Arrival]:
        yield from self._tell()
        self._series = _series(announcement)
        self._shape.begin(self._series, None)
        self._frame = None
        self._header = SeriesHeader()
        self._detail = announcement.get("header_detail")
        if self._detail == HeaderDetail.NONE:
            yield from self._tell()
        else:
            self._next = _Next.CONFIGURATION

    def _configure(self, part: Part) -> Iterator[Arrival]:
        """Take the configuration, and tell it where nothing more of the header comes."""
        self._next = _Next.APPENDIX
        configuration = _json(part)
        if configuration is None or self._series is None:
            raise ValueError(f"the configuration of series {self._series} is not readable")
        shape_px = shape(configuration.get("y_pixels_in_detector"), configuration.get("x_pixels_in_detector"))
        self._shape.begin(self._series, shape_px)
        frames, triggers = count(configuration.get("nimages")), count(configuration.get("ntrigger"))
        axis = self._settings.rotation_axis
        self._header = SeriesHeader(
            # with a region of interest it is not known how many pixels the frames have
            shape_px=shape_px if configuration.get("roi_mode", "disabled") in ("disabled", "") else None,
            energy_eV=positive(configuration.get("photon_energy")) or positive(configuration.get("incident_energy")),
            detector_distance_m=positive(configuration.get("detector_distance")),
            detector_pixel_size_m=positive_pair(configuration.get("y_pixel_size"), configuration.get("x_pixel_size")),
            beam_centre_px=positive_pair(configuration.get("beam_center_y"), configuration.get("beam_center_x")),
            angle_deg=None if axis is None else finite(configuration.get(f"{axis}_start")),
            most_frames=frames * triggers if frames and triggers else None,
        )
        if self._detail != HeaderDetail.ALL:
            yield from self._tell()

    def _describe_mask(self, announcement: Announcement) -> Iterator[Arrival]:
        shape_px, dtype = _shape(announcement), _dtype(announcement, "<")

        def take(part: Part) -> Iterator[Arrival]:
            self._next = _Next.APPENDIX
            image = self._checked(Codec.NONE, part, shape_px, dtype)
            if self._header is None:
                raise ValueError(f"a pixel mask of {shape_px} pixels that no header belongs to")
            if self._header.shape_px not in (None, shape_px):
                raise ValueError(f"a pixel mask of {shape_px} pixels for frames of {self._header.shape_px}")
            self._header = replace(self._header, mask=np.asarray(image.decode() != 0))
            yield from self._tell()

        self._blob = _Blob("the pixel mask", take, shape_px[0] * shape_px[1] * dtype.itemsize)
        yield from ()

    def _describe_unwanted(self, announcement: Announcement) -> Iterator[Arrival]:
        """Expect a blob that is of no use here."""
        rows, columns = _shape(announcement)
        size = rows * columns * _dtype(announcement, "<").itemsize
        self._blob = _Blob("a table of the header", self._pass_over, size)
        yield from ()

    def _pass_over(self, part: Part) -> Iterator[Arrival]:
        self._next = _Next.APPENDIX
        yield from ()

    def _number_frame(self, announcement: Announcement) -> Iterator[Arrival]:
        yield from self._tell()
        self._frame = None
        number = count(announcement.get("frame"))
        if number is None:
            raise ValueError("a frame without number")
        self._frame = _series(announcement), number

    def _describe_frame(self, announcement: Announcement) -> Iterator[Arrival]:
        """Expect the pixels of a frame, to be passed over where they cannot be used."""
        frame, self._frame = self._frame, None
        size = count(announcement.get("size"))
        self._blob = _Blob("an unreadable frame", self._pass_over, size)
        if frame is None:
            raise ValueError("the announcement of a frame was lost")
        series, number = frame
        shape_px = _shape(announcement)
        codec, order, item = _encoding(announcement)
        dtype = _dtype(announcement, order)

        def take(part: Part) -> Iterator[Arrival]:
            image = self._checked(codec, part, shape_px, dtype, shuffled_bytes=item)
            self._shape.check(series, shape_px)
            yield FrameCame(series, number, image)

        self._blob = _Blob(f"frame {number} of series {series}", take, size)
        yield from ()

    def _end_frame(self, announcement: Announcement) -> Iterator[Arrival]:
        self._next = _Next.APPENDIX
        yield from ()

    def _end(self, announcement: Announcement) -> Iterator[Arrival]:
        self._frame = None
        yield from self._tell()
        yield SeriesEnded(_series(announcement), Ending.COMPLETE)

    def _tell(self) -> Iterator[Arrival]:
        """Yield the header of a series that began, once."""
        header, self._header = self._header, None
        if header is not None and self._series is not None:
            yield SeriesBegan(self._series, header)

    def _checked(
        self,
        codec: Codec,
        part: Part,
        shape_px: tuple[int, int],
        dtype: np.dtype[Any],
        *,
        shuffled_bytes: int | None = None,
    ) -> CompressedImage:
        if len(part) > self._settings.max_message_bytes:
            raise ValueError(f"a part of {len(part)} bytes is above max_message_bytes")
        return CompressedImage.checked(
            codec,
            part,
            shape_px,
            dtype,
            max_frame_px=self._settings.max_frame_px,
            shuffled_bytes=shuffled_bytes,
        )


def _announcement(part: Part) -> tuple[str, Announcement] | None:
    """Return which kind of announcement a part is, and its fields; None if it is none."""
    fields = _json(part)
    htype = fields.get("htype") if fields is not None else None
    if fields is None or not isinstance(htype, str) or (match := HTYPE.match(htype)) is None:
        return None
    return match[1], fields


def _json(part: Part) -> Announcement | None:
    if len(part) > LARGEST_JSON_BYTES or bytes(part[:1]) != b"{":
        return None
    try:
        fields = msgspec.json.decode(part)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def _series(announcement: Announcement) -> str:
    if (number := count(announcement.get("series"))) is None:
        raise ValueError(f"a part of type {announcement['htype']} without series")
    return str(number)


def _shape(announcement: Announcement) -> tuple[int, int]:
    """Return (y, x) of what is announced as [x, y]."""
    lengths = announcement.get("shape")
    found = shape(lengths[1], lengths[0]) if isinstance(lengths, list) and len(lengths) == 2 else None
    if found is None:
        raise ValueError(f"a part of type {announcement['htype']} without shape")
    return found


def _dtype(announcement: Announcement, order: str) -> np.dtype[Any]:
    name = announcement.get("type")
    if not isinstance(name, str) or name not in DTYPES:
        raise ValueError(f"values of unknown type {name!r}")
    return np.dtype(order + DTYPES[name])


def _encoding(announcement: Announcement) -> tuple[Codec, str, int | None]:
    """Return the codec, the order of bytes, and how many bytes a value has where they are shuffled."""
    encoding = announcement.get("encoding")
    match = ENCODING.fullmatch(encoding) if isinstance(encoding, str) else None
    if match is None or (match[1] and not match[2]):
        raise ValueError(f"a frame of unknown encoding {encoding!r}")
    if match[1]:
        return Codec.BSLZ4, match[3], int(match[1]) // 8
    return Codec.LZ4 if match[2] else Codec.NONE, match[3], None
