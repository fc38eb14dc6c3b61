"""Understands what the connection made of NTNDArrays."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ptychoflow.acquisition.detectors.arrivals import (
    Arrival,
    FrameCame,
    Malformed,
    PositionsBegan,
    PositionsCame,
    PositionsEnded,
    SeriesBegan,
    SeriesEnded,
    SeriesHeader,
)
from ptychoflow.acquisition.detectors.compression import Codec, CompressedImage, codecs
from ptychoflow.acquisition.detectors.interface import Decoder, Part
from ptychoflow.acquisition.detectors.ntndarray.messages import MAX_TEXT, Began, Ended, Frame, Scalar, decode
from ptychoflow.acquisition.detectors.ntndarray.settings import Compression, FrameNumber, NtndarraySettings
from ptychoflow.acquisition.scan import Ending

ID_VALUES = 1 << 32
"""`uniqueId` is an int32 and goes on from its lowest value."""
MOST = 1 << 62
PVDATA_TYPES = {"|i1": 1, "<i2": 2, "<i4": 3, "|u1": 5, "<u2": 6, "<u4": 7, "<f4": 9}
"""Number of the pvData type for each type of pixels."""
TYPES = {number: dtype for dtype, number in PVDATA_TYPES.items()}
CODECS = {
    Compression.NONE: Codec.NONE,
    Compression.LZ4: Codec.LZ4,
    Compression.LZ4_HDF5: Codec.LZ4_HDF5,
    Compression.BSLZ4: Codec.BSLZ4,
    Compression.BLOSC: Codec.BLOSC,
    Compression.ZLIB: Codec.ZLIB,
}


@dataclass(frozen=True)
class _Series:
    """A series of which frames came."""

    name: str
    first_id: int
    """`uniqueId` of the first one."""
    run: str
    """Of positions; a series' name may come again."""


class NtndarrayDecoder(Decoder):
    """Makes arrivals of NTNDArrays, one by one.

    A frame that is not two-dimensional, but for dimensions of one pixel, is refused: colours are no diffraction.

    Raises:
        UserError: the library that decodes compressed frames is not installed.
    """

    def __init__(self, settings: NtndarraySettings) -> None:
        codecs()
        self._settings = settings
        self._series: _Series | None = None
        """The one that is going on."""
        self._begun = 0

    def decode(self, parts: Sequence[Part]) -> Iterable[Arrival]:
        """Return what a message says."""
        try:
            message = decode(parts)
            if len(message.series) > MAX_TEXT:
                raise ValueError("the name of a series is too long")
            if isinstance(message, Frame):
                return list(self._frame(message, parts))
            return list(self._notice(message))
        except ValueError as error:
            return [Malformed.because(error)]

    def _notice(self, notice: Began | Ended) -> Iterator[Arrival]:
        """A beginning is told with the first frame, which says more of the series."""
        if isinstance(notice, Ended):
            ending = Ending.ABORTED if notice.aborted else Ending.COMPLETE
            yield SeriesEnded(notice.series, ending)
            ended = self._going_on(notice.series)
            if ended is not None:
                self._series = None
                if self._settings.positions is not None:
                    yield PositionsEnded(ended.run, ending)

    def _going_on(self, name: str) -> _Series | None:
        """Return the series that is going on if it has this name; after another one, the name is that of a new one."""
        return self._series if self._series is not None and self._series.name == name else None

    def _frame(self, frame: Frame, parts: Sequence[Part]) -> Iterator[Arrival]:
        image = self._image(frame, parts)
        series = self._going_on(frame.series)
        number = self._number(frame, frame.unique_id if series is None else series.first_id)
        begins = series is None
        if series is None:
            self._begun += 1
            series = self._series = _Series(frame.series, frame.unique_id, f"{frame.series} ({self._begun})")
        positions = self._settings.positions
        if begins:
            yield SeriesBegan(frame.series, self._header(frame, image.shape_px))
            if positions is not None:
                yield PositionsBegan(series.run, frame.series)
        yield FrameCame(frame.series, number, image)
        if positions is not None:
            position = [
                _real(frame.attributes.get(name)) * positions.unit.metres for name in (positions.y, positions.x)
            ]
            yield PositionsCame(series.run, np.array([number], np.int64), np.array([position]))

    def _image(self, frame: Frame, parts: Sequence[Part]) -> CompressedImage:
        if len(parts) != 2:
            raise ValueError(f"an NTNDArray has a header and pixels, not {len(parts)} parts")
        try:
            codec = CODECS[Compression(frame.codec)]
        except ValueError:
            raise ValueError(f"the compression {frame.codec[:MAX_TEXT]!r} is not known") from None
        dtype = frame.dtype if codec is Codec.NONE else TYPES.get(frame.codec_type or 0)
        if dtype not in PVDATA_TYPES:
            kind = frame.dtype[:MAX_TEXT] if codec is Codec.NONE else frame.codec_type
            raise ValueError(f"pixels of the type {kind} are not known")
        return CompressedImage.checked(
            codec, parts[1], _shape_px(frame.sizes_px), dtype, max_frame_px=self._settings.max_frame_px
        )

    def _number(self, frame: Frame, first_id: int) -> int:
        source = self._settings.number_from
        if source is FrameNumber.ATTRIBUTE:
            number = _real(frame.attributes.get(self._settings.number_attribute or ""))
            if not number.is_integer():
                raise ValueError(f"a frame has no number in the attribute {self._settings.number_attribute}")
        else:
            number = frame.unique_id
            if source is FrameNumber.FROM_FIRST:
                number = (number - first_id + ID_VALUES // 2) % ID_VALUES - ID_VALUES // 2
        if abs(number) > MOST:
            raise ValueError(f"a frame has the number {number}")
        return int(number)

    def _header(self, frame: Frame, shape_px: tuple[int, int]) -> SeriesHeader:
        settings = self._settings
        return SeriesHeader(
            shape_px=shape_px,
            # a monochromator that nobody has set says 0
            energy_eV=self._attribute(frame, settings.energy_attribute, above=0.0),
            angle_deg=self._attribute(frame, settings.angle_attribute, above=-math.inf),
        )

    @staticmethod
    def _attribute(frame: Frame, name: str | None, *, above: float) -> float | None:
        value = math.nan if name is None else _real(frame.attributes.get(name))
        return value if above < value < math.inf else None


def _shape_px(sizes_px: Sequence[int]) -> tuple[int, int]:
    """Return (y, x); sizes come x first."""
    sizes = [size for size in sizes_px if size != 1] if len(sizes_px) > 2 else list(sizes_px)
    if len(sizes) != 2 or min(sizes) < 1:
        raise ValueError(f"a frame has two dimensions, not {list(sizes_px)[:8]}")
    return sizes[1], sizes[0]


def _real(value: Scalar | None) -> float:
    """Return a number, NaN where there is none."""
    try:
        return math.nan if value is None or isinstance(value, str) else float(value)
    except OverflowError:
        return math.nan
