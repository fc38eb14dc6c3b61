"""Reads batches of image files in threads, so that the stream goes on meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.classification.decoding import CorruptImage, decode
from ptychoflow.acquisition.classification.settings import ClassificationSourceSettings
from ptychoflow.acquisition.classification.stream_order import StreamedImage

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ReadImages:
    """Images of a batch that could be read."""

    pixels: Pixels
    """(n, channels, y, x)."""
    good: npt.NDArray[np.bool_]
    """Which images of the batch these are, (batch,)."""
    faults: list[str]
    """Why the others could not be read; each names its file."""


class ReadingBatch:
    """A batch that is being read."""

    def __init__(self, parts: Sequence[Future[Pixels | CorruptImage]], *, shape: tuple[int, int, int]) -> None:
        self._parts, self._shape = parts, shape

    def done(self) -> bool:
        """Whether all files have been read."""
        return all(part.done() for part in self._parts)

    def result(self) -> ReadImages:
        """Return the images; blocks until they have been read."""
        read = [part.result() for part in self._parts]
        images = [one for one in read if not isinstance(one, CorruptImage)]
        pixels = np.stack(images) if images else np.zeros((0, *self._shape), np.uint8)
        good = np.array([not isinstance(one, CorruptImage) for one in read], dtype=bool)
        return ReadImages(pixels, good, [str(one) for one in read if isinstance(one, CorruptImage)])


class ImageReader:
    """Decodes files; a context manager.

    Args:
        settings: threads, and the shape that images get.
    """

    def __init__(self, settings: ClassificationSourceSettings) -> None:
        self._channels, self._px = settings.channels, settings.stored_px
        self._executor = ThreadPoolExecutor(settings.workers, thread_name_prefix="images")

    def read(self, images: Sequence[StreamedImage]) -> ReadingBatch:
        """Begin to read a batch; returns at once."""
        parts = [self._executor.submit(self._decode, image) for image in images]
        return ReadingBatch(parts, shape=(self._channels, self._px, self._px))

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give up what is not being read yet."""
        self._executor.shutdown(cancel_futures=True)

    def _decode(self, image: StreamedImage) -> Pixels | CorruptImage:
        try:
            return decode(image.path, channels=self._channels, px=self._px)
        except CorruptImage as error:
            return error
