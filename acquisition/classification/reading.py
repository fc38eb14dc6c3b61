"""Reads batches of image files in threads, so that the stream goes on meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from ptychoflow.acquisition.classification.decoding import Decoded, Pixels, decode, decode_all
from ptychoflow.acquisition.classification.settings import ClassificationSourceSettings
from ptychoflow.acquisition.classification.stream_order import StreamedImage


class ReadingBatch:
    """A batch that is being read."""

    def __init__(self, parts: Sequence[Future[Pixels]], *, channels: int, px: int) -> None:
        self._parts, self._channels, self._px = parts, channels, px

    def done(self) -> bool:
        """Whether all files have been read."""
        return all(part.done() for part in self._parts)

    def result(self) -> Decoded:
        """Return the images by their places in the batch; blocks until they have been read."""
        rows = range(len(self._parts))
        return decode_all(rows, lambda row: self._parts[row].result(), channels=self._channels, px=self._px)


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
        shape = {"channels": self._channels, "px": self._px}
        parts = [self._executor.submit(decode, image.path, **shape) for image in images]
        return ReadingBatch(parts, **shape)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give up what is not being read yet."""
        self._executor.shutdown(cancel_futures=True)
