"""From an image file to an array."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps

Pixels = npt.NDArray[np.uint8]

_FILTER = Image.Resampling.BILINEAR
_OF_32_BITS = ("I", "F")
"""Pillow's modes of images whose range nobody knows; converted, they would be clipped to white or black."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image upright, by its EXIF orientation."""
_PER_GREY_LEVEL = 257
"""Of 16 bits: 65535 / 255."""


class CorruptImage(Exception):
    """A file that is not a readable image; says which and why."""


@dataclass(frozen=True)
class Decoded:
    """What could be read of some images."""

    pixels: Pixels
    """(n, channels, px, px)."""
    rows: list[int]
    """Which of the images these are."""
    faults: dict[int, str]
    """Why the others could not be read; each names its file."""


def decode_all(rows: Iterable[int], read: Callable[[int], Pixels], *, channels: int, px: int) -> Decoded:
    """Read some images, and leave out those that cannot be; blocks as `read` does.

    Args:
        rows: numbers of the images.
        read: returns an image, uint8 (channels, px, px), by its number, or raises CorruptImage.
        channels: of each.
        px: side of each.
    """
    images: dict[int, Pixels] = {}
    faults: dict[int, str] = {}
    for row in rows:
        try:
            images[row] = read(row)
        except CorruptImage as error:
            faults[row] = str(error)
    pixels = np.stack(list(images.values())) if images else np.zeros((0, channels, px, px), np.uint8)
    return Decoded(pixels, list(images), faults)


def decode(path: Path, *, channels: int, px: int) -> Pixels:
    """Return the middle square of an image, scaled to `px`: uint8 (channels, px, px).

    It is turned as its EXIF orientation says, transparent parts are white, and 16 bits become 8.

    Raises:
        CorruptImage: the file cannot be read, or holds values of 32 bits.
    """
    try:
        with Image.open(path) as image:
            shown = _opaque(_of_8_bits(_upright(image)))
            pixels = np.asarray(ImageOps.fit(shown.convert("RGB" if channels == 3 else "L"), (px, px), _FILTER))
    # Pillow's decoders raise all of these for files that are cut off or overwritten.
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        RuntimeError,
        OverflowError,
        MemoryError,
        struct.error,
        Image.DecompressionBombError,
    ) as error:
        raise CorruptImage(f"{path}: {str(error) or type(error).__name__}") from error
    return np.ascontiguousarray(pixels.reshape(px, px, channels).transpose(2, 0, 1))


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # a PNG may say it behind its pixels
    # `ImageOps.exif_transpose` would write all of the EXIF anew, and fails where a camera wrote what it may not
    turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return image if turn is None else image.transpose(turn)


def _of_8_bits(image: Image.Image) -> Image.Image:
    if image.mode in _OF_32_BITS:
        raise ValueError("it holds values of 32 bits; write it with 8 or 16")
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) // _PER_GREY_LEVEL).astype(np.uint8))
    return image


def _opaque(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    ground = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(ground, image.convert("RGBA"))
