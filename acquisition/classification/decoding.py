"""From an image file to an array."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps


class CorruptImage(Exception):
    """A file that is not a readable image; says which and why."""


def decode(path: Path, *, channels: int, px: int) -> npt.NDArray[np.uint8]:
    """Return the middle square of an image, scaled to `px`: uint8 (channels, px, px).

    Raises:
        CorruptImage: the file cannot be read.
    """
    try:
        with Image.open(path) as image:
            pixels = np.asarray(ImageOps.fit(image.convert("RGB" if channels == 3 else "L"), (px, px), _FILTER))
    # Pillow's decoders raise all of these for files that are cut off or overwritten.
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise CorruptImage(f"{path}: {error}") from error
    return np.ascontiguousarray(pixels.reshape(px, px, channels).transpose(2, 0, 1))


_FILTER = Image.Resampling.BILINEAR
