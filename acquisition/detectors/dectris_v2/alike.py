"""Messages with frames that differ in nothing but numbers and pixels are understood many at once.

A detector sends the same fields in the same order for every frame of a series. Of one message that has been understood
it is noted where in its bytes the number of the frame, the times and the pixels lie. Another one whose other bytes are
all the same says the same but for these: how long a number is stands in the byte before it, and that is compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.detectors.arrivals import FrameCame, FramesCame
from ptychoflow.acquisition.detectors.compression import Codec, CompressedImage, CompressedImages
from ptychoflow.acquisition.detectors.interface import Part
from ptychoflow.acquisition.detectors.message import Run

MOST_BYTES = 4096
"""Before and behind the pixels; of messages with more nothing is noted."""
MOST_ITEMS = 500
MOST_PASSED_OVER = 1 << 10
NUMBER = "image_id"
TIMES = ("start_time", "stop_time", "real_time")
"""Of which nothing is needed."""
UNSIGNED, NEGATIVE, BYTES, TEXT, ARRAY, MAP, TAG, OTHER = range(8)
"""The major types of CBOR."""
_LENGTHS = {24: 1, 25: 2, 26: 4, 27: 8}
"""Bytes of an argument that follows, by what the first byte says."""


class _Unlike(Exception):
    """A message of a form that other messages cannot be compared with."""


@dataclass(frozen=True)
class _Argument:
    """A number in a message: the argument of an item."""

    begin: int
    width: int
    """Bytes behind the first byte of the item."""
    value: int

    @property
    def bytes(self) -> slice:
        """Where it is."""
        return slice(self.begin, self.begin + self.width)


class _Reader:
    """Walks through a message that is known to be sound."""

    def __init__(self, part: memoryview) -> None:
        self._part = part
        self._items = 0
        self.place = 0
        self.pixels: list[_Argument] = []
        """Lengths of all strings of bytes."""

    def argument(self, kind: int) -> _Argument:
        """Return the argument of the next item, which must be of this kind."""
        found, argument = self.next()
        if found != kind:
            raise _Unlike
        return argument

    def text(self) -> str:
        """Return the next item, which must be a text."""
        length = self.argument(TEXT).value
        self.place += length
        return bytes(self._part[self.place - length : self.place]).decode()

    def skip(self) -> list[_Argument]:
        """Pass over the next item; return it if it is a whole number from 0, and those in it if it is an array."""
        kind, argument = self.next()
        if kind == UNSIGNED:
            return [argument]
        if kind == BYTES:
            self.pixels.append(argument)
        if kind in (BYTES, TEXT):
            self.place += argument.value
        children = {ARRAY: argument.value, MAP: 2 * argument.value, TAG: 1}.get(kind, 0)
        numbers = [number for _ in range(children) for number in self.skip()]
        return numbers if kind == ARRAY else []  # what a tag makes of a number is not looked into

    def next(self) -> tuple[int, _Argument]:
        """Return which kind of item comes, and its argument."""
        self._items += 1
        if self._items > MOST_ITEMS:
            raise _Unlike
        first = self._part[self.place]
        kind, short = first >> 5, first & 31
        begin, width = self.place + 1, _LENGTHS.get(short, 0)
        if width == 0 and short >= 24:  # of unknown length
            raise _Unlike
        self.place = begin + width
        value = int.from_bytes(self._part[begin : self.place], "big") if width else short
        return kind, _Argument(begin, width, value)


@dataclass(frozen=True)
class Template:
    """What messages have in common."""

    series: str
    image: CompressedImage
    """One of them."""
    head: npt.NDArray[np.uint8]
    """The bytes before the pixels."""
    head_free: npt.NDArray[np.bool_]
    """Which of them may be anything."""
    tail: npt.NDArray[np.uint8]
    """The bytes behind the pixels."""
    tail_free: npt.NDArray[np.bool_]
    number: _Argument
    length: _Argument
    """Of the pixels."""

    @classmethod
    def of(cls, part: Part, frame: FrameCame) -> Self | None:
        """Return that of a message of which a frame has been made; None if it cannot be told what is free in it."""
        image = frame.image
        if not isinstance(image, CompressedImage) or len(part) - len(image.encoded) > MOST_BYTES:
            return None
        message = memoryview(part).cast("B")
        try:
            number, free, reader = _fields(message)
            (length,) = reader.pixels
        except (_Unlike, ValueError, IndexError, UnicodeDecodeError):
            return None
        begin = length.begin + length.width
        end = begin + length.value
        if number.value != frame.number or number.begin > begin or message[begin:end] != image.encoded:
            return None
        is_free = np.zeros(len(message), np.bool_)
        for argument in [number, *free, *([] if image.codec is Codec.NONE else [length])]:
            is_free[argument.bytes] = True
        content = np.frombuffer(message, np.uint8)
        return cls(
            frame.series,
            image,
            content[:begin].copy(),
            is_free[:begin],
            content[end:].copy(),
            is_free[end:],
            number,
            length,
        )

    def matches(self, run: Run) -> npt.NDArray[np.bool_]:
        """Return which messages of a run say the same, but for what is free, bool (n,)."""
        begins, ends = run.bounds[:-1], run.bounds[1:]
        alike = ends - begins >= len(self.head) + len(self.tail)
        places = np.flatnonzero(alike)
        if not len(places):
            return alike
        window = np.frombuffer(run.window, np.uint8)
        heads = _rows(window, begins[places], len(self.head))
        lengths = _numbers(heads, self.length)
        same = ((heads == self.head) | self.head_free).all(axis=1)
        same &= lengths == (ends - begins)[places] - len(self.head) - len(self.tail)
        if len(self.tail):
            tails = _rows(window, ends[places] - len(self.tail), len(self.tail))
            same &= ((tails == self.tail) | self.tail_free).all(axis=1)
        alike[places] = same
        return alike

    def frames(self, run: Run) -> FramesCame:
        """Return the frames of a run of which every message matches."""
        begins, ends, image = run.bounds[:-1], run.bounds[1:], self.image
        heads = _rows(np.frombuffer(run.window, np.uint8), begins, len(self.head))
        images = CompressedImages(
            image.codec,
            run.window,
            begins + len(self.head),
            ends - len(self.tail),
            image.shape_px,
            image.dtype,
            image.shuffled_bytes,
        )
        return FramesCame(self.series, _numbers(heads, self.number), images, run.received_at_s)


class Templates:
    """What is noted of messages: the newest one of which something could be noted.

    Args:
        most_bytes: messages that are longer match nothing.
    """

    def __init__(self, *, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._template: Template | None = None
        self._passed_over, self._pass_over = 0, 0
        """Messages since the last one that was looked at, and how many are not looked at."""

    def matches(self, run: Run) -> npt.NDArray[np.bool_]:
        """Return which messages of a run, each of one part, can be understood together, bool (n,)."""
        if self._template is None or not len(run):
            return np.zeros(len(run), np.bool_)
        alike = self._template.matches(run) & (np.diff(run.bounds) <= self._most_bytes)
        if alike.any():
            self._passed_over, self._pass_over = 0, 1  # one message that differs may be the only one
        return alike

    def frames(self, run: Run) -> FramesCame:
        """Return the frames of messages that match."""
        assert self._template is not None  # noqa: S101
        return self._template.frames(run)

    def learns(self, part: Part, frame: FrameCame) -> bool:
        """Take note of a message; return whether others are to be compared with it from now on.

        Where nothing matches what was noted, less and less is.
        """
        self._passed_over += 1
        if self._passed_over <= self._pass_over:
            return False
        self._pass_over = min(2 * self._pass_over + 1, MOST_PASSED_OVER)
        self._passed_over = 0
        if (template := Template.of(part, frame)) is None:
            return False
        self._template = template
        return True


def _fields(message: memoryview) -> tuple[_Argument, list[_Argument], _Reader]:
    """Return where the number and the times of a message are, and what has read them."""
    reader = _Reader(message)
    kind, argument = reader.next()
    while kind == TAG:
        kind, argument = reader.next()
    if kind != MAP:
        raise _Unlike
    number, free = None, []
    for _ in range(argument.value):
        key = reader.text()
        value = reader.skip()
        if key == NUMBER:
            (number,) = value
        elif key in TIMES:
            free += value
    if number is None or not 0 < number.width < 8 or reader.place != len(message):
        raise _Unlike
    return number, free, reader


def _rows(window: npt.NDArray[np.uint8], begins: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.uint8]:
    """Return so many bytes from each place on, (n, length)."""
    every: npt.NDArray[np.uint8] = np.ndarray((len(window) - length + 1, length), np.uint8, window, strides=(1, 1))
    return every[begins]


def _numbers(rows: npt.NDArray[np.uint8], argument: _Argument) -> npt.NDArray[np.int64]:
    """Return a number of each row; that of the argument where its item holds it in its first byte."""
    if argument.width == 0:
        return np.full(len(rows), argument.value, np.int64)
    return np.ascontiguousarray(rows[:, argument.bytes]).view(f">u{argument.width}")[:, 0].astype(np.int64)
