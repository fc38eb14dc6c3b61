"""Frames as they travel, and which of them cannot be used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ptychoflow.streaming.errors import UserError

COUNT_DTYPES = (np.dtype(np.uint8), np.dtype(np.uint16))
"""Counts that every part computes with directly; other dtypes travel as float32."""
SATURATED_SHARE = 0.5
"""A frame in which more of the pixels with counts hold the dtype's largest value than this shows nothing."""
NEVER_COUNTED = 2**31 - 1
"""A largest value of this or more is no count: detectors write it for what they could not count."""
UNUSABLE = "without counts, saturated all over, or with values that are negative, no numbers or no counts"
RANGES_NAMED = 6


def streamed_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype that frames of `dtype` travel in: uint8 and uint16 as they are, everything else as float32."""
    return dtype if dtype in COUNT_DTYPES else np.dtype(np.float32)


def as_streamed(frames: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return frames in the dtype that they travel in."""
    return frames.astype(streamed_dtype(frames.dtype), copy=False)


def chosen_as_streamed(frames: npt.NDArray[Any], chosen: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """Return the chosen ones (n,) of frames in the dtype that they travel in.

    They are not copied where all are chosen and nothing is to be changed, unless they are read-only: those of a file.
    """
    return as_streamed(frames if chosen.all() and frames.flags.writeable else frames[chosen])


def usable(frames: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return which frames (n, y, x) can be used, bool (n,).

    They hold some counts, all of them finite and at least zero, none that was never counted, and are not saturated all
    over.
    """
    pixels = frames.reshape(len(frames), -1)
    top = pixels.max(axis=1)
    good = np.asarray(np.isfinite(top) & (top > 0))  # a NaN is the largest of what it is among
    if frames.dtype.kind != "u":
        good &= pixels.min(axis=1) >= 0
    if frames.dtype.kind in "iu":
        largest = np.iinfo(frames.dtype).max
        if largest >= NEVER_COUNTED:
            return np.asarray(good & (top < largest))
        for row in np.flatnonzero(top == largest).tolist():
            at_top = np.count_nonzero(pixels[row] == top[row])
            good[row] &= at_top <= SATURATED_SHARE * np.count_nonzero(pixels[row])
    return good


def shows_counts(frames: npt.NDArray[Any], mask: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.bool_]:
    """Return which frames (n, y, x) hold a count somewhere, bool (n,), whatever marks the pixels that are none.

    For frames as a detector sends them, before it is known which of their pixels are gaps: `usable` would take a gap's
    marker for a count that is wrong.

    Args:
        frames: as they came.
        mask: pixels that are known to be bad, bool (y, x).
    """
    counted = frames > 0
    if frames.dtype.kind in "iu":
        counted &= frames < min(np.iinfo(frames.dtype).max, NEVER_COUNTED)
    else:
        counted &= np.isfinite(frames)
    if mask is not None:
        counted &= ~mask
    return np.asarray(counted.any(axis=(1, 2)))


class Readable(Protocol):
    """What frames are read from."""

    def read(self, start: int, stop: int, /) -> npt.NDArray[Any]:
        """Return frames start to stop, (stop - start, y, x)."""
        ...


def readable_frames(frames: Readable, indices: Iterable[int]) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yield the index of each frame that can be read, and the frame (1, y, x).

    Others are passed over in silence: this is for a look at some frames; who reads them all says so.
    """
    for index in indices:
        try:
            frame = frames.read(index, index + 1)
        except UserError:
            continue
        yield index, frame


def ranges_in_words(numbers: Sequence[int]) -> str:
    """Return growing numbers as text: "3, 7 to 12", the first ranges of many."""
    ends = np.flatnonzero(np.diff(numbers) != 1) + 1
    runs = [run for run in np.split(np.asarray(numbers), ends) if len(run)]
    said = [f"{run[0]}" if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs[:RANGES_NAMED]]
    return ", ".join(said) + (" …" if len(runs) > RANGES_NAMED else "")
