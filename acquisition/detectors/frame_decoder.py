"""Decodes frames of a detector, several at once, and cuts out of them what is looked at."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.detectors.arrivals import EncodedImage
from ptychoflow.acquisition.detectors.compression import TOGETHER_BYTES, decode_together
from ptychoflow.acquisition.detectors.joiner import PlacedFrames
from ptychoflow.acquisition.scan import Geometry

Frames = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Cut:
    """What is cut out of frames, so that large ones are let go of as soon as they are decoded."""

    apply: Callable[[Frames], Frames]
    """Makes smaller frames (n, y, x) of those that are sent, which it leaves as they are."""
    rows: tuple[int, int]
    """The first row that it looks at, and the one behind the last."""


class FrameDecoder:
    """Decodes frames, several at once."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def __call__(
        self, frames: PlacedFrames, geometry: Geometry | None, notes: list[str], *, cut: Cut | None = None
    ) -> Frames:
        """Return frames (n, y, x); those that are damaged, or of another shape than the first ones, as zeros.

        Args:
            frames: at least one.
            geometry: of frames as they are sent; None takes the shape of the first one.
            notes: where it is told what was set aside.
            cut: what is cut out of them. Damage elsewhere may go unnoticed.
        """
        first = frames.images[0]
        shape = first.shape_px if geometry is None else geometry.frame_shape_px
        worth_threads = -(-len(frames) * math.prod(shape) * first.dtype.itemsize // TOGETHER_BYTES)
        share = -(-len(frames) // min(self._threads, worth_threads))
        parts = [frames[start : start + share] for start in range(0, len(frames), share)]
        decoded = [self._pool.submit(_decode, part, shape, cut) for part in parts[1:]]
        images = _decode(parts[0], shape, cut)
        for part in decoded:
            images += part.result()
        if len(images) == 1 < len(frames) and not isinstance(images[0], str):
            return images[0]
        dtype = next((image.dtype for image in images if not isinstance(image, str)), np.dtype(np.uint8))
        blank = np.zeros((1, *shape), dtype)
        blank = blank if cut is None else cut.apply(blank)
        notes += [image for image in images if isinstance(image, str)]
        return np.concatenate([blank if isinstance(image, str) else image for image in images])

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()


def _decode(frames: PlacedFrames, shape: tuple[int, int], cut: Cut | None) -> list[Frames | str]:
    """Return frames (n, y, x) in pieces; in place of those that are set aside, one by one, why they are."""
    dtype = frames.images[0].dtype
    at_once = len(frames) if cut is None else max(1, TOGETHER_BYTES // (math.prod(shape) * dtype.itemsize))
    target = np.empty((min(at_once, len(frames)), *shape), dtype)
    images: list[Frames | str] = []
    for start in range(0, len(frames), at_once):
        some = frames[start : start + at_once]
        together = target[: len(some)]
        if not decode_together(some.images, together, rows=None if cut is None else cut.rows):
            images += [_decode_one(*one, shape, cut) for one in zip(some.triggers, some.images, strict=True)]
        else:
            images.append(together if cut is None else cut.apply(together))
    return images


def _decode_one(trigger: int, encoded: EncodedImage, shape: tuple[int, int], cut: Cut | None) -> Frames | str:
    """Return a frame (1, y, x), or why it is set aside."""
    try:
        image = encoded.decode()
    except ValueError as error:
        return f"frame {trigger} is damaged and set aside: {error}"
    if image.shape != shape:
        return f"frame {trigger} has {image.shape} pixels and not {shape}; it is set aside"
    return image[np.newaxis] if cut is None else cut.apply(image[np.newaxis])
