"""What a look at many frames of a perspective shows: pixels that cannot be used, frames that show nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ptychoflow.acquisition.frame_check import NEVER_COUNTED, SATURATED_SHARE, ranges_in_words
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.frame_memory import frames_within

Frames = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

LOOKED_AT_BYTES = 2**26
"""As many frames as this are looked at, evenly spread over the perspective."""
LEAST_FRAMES = 16
PART_BYTES = 2**24

MARKERS = np.array([2**bits - below for bits in (15, 16, 20, 24, 31, 32) for below in (1, 2)])
"""Values that detectors write where they have no pixel, beside the largest value of the frames' own dtype."""
MOST_OVERFLOWN = 0.05
"""Of the pixels; where more than this hold the largest value in some frames, it is frames that are wrong."""
HOT_FACTOR = 10.0
"""A hot pixel is so many times as bright as all but two of the 24 pixels around it, in the mean frame."""
HOT_COUNTS = 10.0
HOT_NEIGHBOURS = 2
HOT_CANDIDATES = 1000
NEIGHBOURHOOD = 5


@dataclass(frozen=True)
class FrameSurvey:
    """What was seen in the frames looked at; arrays are (y, x) as stored."""

    frames: int
    """Of the perspective."""
    looked_at: int
    unusable: dict[int, str]
    """Numbers of the frames that show nothing, and why."""
    bad: Mask
    """Pixels that cannot be used."""
    mean: npt.NDArray[np.float64]
    """The mean of the usable frames; 0 where a pixel is bad."""
    light: npt.NDArray[np.float64]
    """The mean of the usable frames, also of masked pixels; 0 where nothing changes from frame to frame, as in gaps."""
    notes: list[str]

    @property
    def nothing_usable(self) -> bool:
        """Whether every frame looked at is unusable."""
        return len(self.unusable) == self.looked_at

    def reasons(self) -> str:
        """Return why frames are unusable, with counts."""
        return ", ".join(f"{count} {reason}" for reason, count in Counter(self.unusable.values()).items())


def survey_frames(
    read: Callable[[int, int], Frames],
    *,
    frames: int,
    shape_px: tuple[int, int],
    dtype: np.dtype[np.generic],
    known_bad: Mask | None,
    saturation_counts: float | None,
    find_bad: bool,
) -> FrameSurvey:
    """Look through frames that are evenly spread over a perspective; a part of them is in memory at a time.

    Args:
        read: returns frames start to stop as stored.
        frames: number of frames.
        shape_px: their shape (y, x).
        dtype: their type.
        known_bad: pixels that are masked anyway.
        saturation_counts: a pixel that reaches this in any frame looked at is bad.
        find_bad: also look for pixels that hold a marker, no number or a negative one in every frame, or are hot.
    """
    look = _Look(shape_px, dtype, saturation_counts)
    frame_bytes = max(1, dtype.itemsize * shape_px[0] * shape_px[1])
    count = min(frames, max(LEAST_FRAMES, LOOKED_AT_BYTES // frame_bytes))
    step = frames_within(PART_BYTES, shape_px, dtype.itemsize) if count == frames else 1
    for start in range(0, count, step):
        stop = min(start + step, count)
        first = start if count == frames else start * frames // count
        _look_at(look, read, first, first + stop - start)
    known = np.zeros(shape_px, bool) if known_bad is None else known_bad
    return look.result(frames, known, find_bad=find_bad)


def _look_at(look: _Look, read: Callable[[int, int], Frames], start: int, stop: int) -> None:
    """Look at frames start to stop, at each by itself where they cannot be read together."""
    try:
        frames = read(start, stop)
    except UserError:
        if stop - start == 1:
            look.cannot_read(start)
        else:
            for index in range(start, stop):
                _look_at(look, read, index, index + 1)
    else:
        look.at(range(start, stop), frames)


class _Look:
    """Goes through frames once and keeps what is needed to judge pixels and frames."""

    def __init__(self, shape_px: tuple[int, int], dtype: np.dtype[np.generic], saturation_counts: float | None) -> None:
        self._threshold = saturation_counts
        self._largest = int(np.iinfo(dtype.type).max) if dtype.kind in "iu" else None  # type: ignore[type-var]
        self._invalid = np.ones(shape_px, bool)
        self._saturated = np.zeros(shape_px, bool)
        self._overflown = np.zeros(shape_px, bool)
        self._lowest: Frames = np.zeros(0)
        self._highest: Frames = np.zeros(0)
        self._total = np.zeros(shape_px)
        self._summed = 0
        self._at_largest: dict[int, int] = {}
        self._not_finite: dict[int, int] = {}
        self._unusable: dict[int, str] = {}

    def cannot_read(self, number: int) -> None:
        self._at_largest[number] = self._not_finite[number] = 0
        self._unusable[number] = "that cannot be read"

    def at(self, numbers: range, frames: Frames) -> None:
        for number, frame in zip(numbers, frames, strict=True):
            finite = np.isfinite(frame)
            self._not_finite[number] = int(frame.size - np.count_nonzero(finite))
            at_largest = 0 if self._largest is None else int(np.count_nonzero(frame == self._largest))
            self._at_largest[number] = at_largest
            if self._not_finite[number] == frame.size:
                self._unusable[number] = "without a finite value"
            elif not (frame > 0).any():
                self._unusable[number] = "without counts"
            elif at_largest == frame.size:
                self._unusable[number] = "saturated all over"
            else:
                self._add(frame, finite)

    def _add(self, frame: Frames, finite: Mask) -> None:
        valid = finite & (frame >= 0)
        self._invalid &= ~valid
        if self._threshold is not None:
            self._saturated |= frame >= self._threshold
        if self._largest is not None:
            self._overflown |= frame == self._largest
        if not self._summed:
            self._lowest, self._highest = frame.copy(), frame.copy()
        np.fmin(self._lowest, frame, out=self._lowest)
        np.fmax(self._highest, frame, out=self._highest)
        self._total += np.where(valid, frame, 0)
        self._summed += 1

    def result(self, frames: int, known: Mask, *, find_bad: bool) -> FrameSurvey:
        looked_at = len(self._at_largest)
        mean = self._total / max(self._summed, 1)
        if not self._summed:
            return FrameSurvey(frames, looked_at, self._unusable, known.copy(), mean, mean, [])
        light = np.where(self._lowest < self._highest, mean, 0.0)
        marked = find_bad & self._marked() & ~known
        invalid = find_bad & self._invalid & ~known & ~marked
        overflown = find_bad & self._overflown & ~known & ~marked & ~self._saturated
        ignored = overflown & (self._overflow_is_no_count and overflown.mean() <= MOST_OVERFLOWN)
        bad = known | marked | invalid | ignored
        mean[bad] = 0.0
        hot = find_bad & self._hot(mean, bad)
        self._judge_frames(marked | known, invalid | known)
        saturated = self._saturated & ~(bad | hot)
        bad |= hot | self._saturated
        mean[bad] = 0.0
        survey = FrameSurvey(frames, looked_at, self._unusable, bad, mean, light, [])
        survey.notes.extend(self._notes(survey, marked=marked, invalid=invalid, hot=hot, saturated=saturated))
        if number := int(np.count_nonzero(overflown)):
            survey.notes.append(self._overflow_note(number, ignored=bool(ignored.any())))
        return survey

    @property
    def _overflow_is_no_count(self) -> bool:
        return self._largest is not None and self._largest >= NEVER_COUNTED

    def _overflow_note(self, number: int, *, ignored: bool) -> str:
        if ignored:
            return f"{number} pixels hold {self._largest} in some of the frames looked at, no count; they are ignored"
        return (
            f"{number} pixels hold {self._largest}, the largest value of their type, in some of the frames looked at: "
            f"if they are saturated, --set source.preprocess.saturation_counts={self._largest} ignores them in all "
            "frames"
        )

    def _marked(self) -> Mask:
        """Return the pixels that hold a marker of gaps and dead pixels in every frame looked at."""
        largest = np.array([] if self._largest is None else [self._largest])
        markers = np.concatenate([largest, MARKERS]) if self._summed > 1 else largest
        if self._largest is None:
            markers = np.concatenate([markers, markers.astype(self._lowest.dtype)])
        same = self._lowest == self._highest
        return np.asarray(same & np.isin(self._lowest, markers.astype(np.float64)))

    def _hot(self, mean: npt.NDArray[np.float64], bad: Mask) -> Mask:
        hot = np.zeros(mean.shape, bool)
        around = ndimage.uniform_filter(mean, NEIGHBOURHOOD, mode="constant")
        width = mean.shape[1]
        reach = NEIGHBOURHOOD // 2
        # The mean over the neighbourhood holds the pixel itself and its brightest neighbours: a coarse first choice.
        candidates = np.flatnonzero((mean > HOT_COUNTS) & (mean > 4 * around))
        for pixel in candidates[np.argsort(mean.ravel()[candidates])[::-1][:HOT_CANDIDATES]].tolist():
            y, x = divmod(pixel, width)
            rows, columns = slice(max(y - reach, 0), y + reach + 1), slice(max(x - reach, 0), x + reach + 1)
            others = np.sort(mean[rows, columns][~bad[rows, columns]])[::-1][1:]
            if len(others) <= HOT_NEIGHBOURS + 2:
                continue
            usual = others[HOT_NEIGHBOURS]
            hot[y, x] = mean[y, x] > HOT_FACTOR * usual + HOT_COUNTS and self._lowest[y, x] > usual
        return hot

    def _judge_frames(self, marked: Mask, invalid: Mask) -> None:
        """Find frames that are saturated, or not numbers, at pixels where others are not."""
        pixels = marked.size
        marked_pixels, invalid_pixels = int(np.count_nonzero(marked)), int(np.count_nonzero(invalid))
        for number, at_largest in self._at_largest.items():
            if number in self._unusable:
                continue
            if at_largest - marked_pixels > SATURATED_SHARE * (pixels - marked_pixels):
                self._unusable[number] = "saturated all over"
            elif self._not_finite[number] > invalid_pixels:
                self._unusable[number] = "with values that are no numbers"

    def _notes(self, survey: FrameSurvey, *, marked: Mask, invalid: Mask, hot: Mask, saturated: Mask) -> list[str]:
        notes = []
        if number := np.count_nonzero(marked):
            values = ", ".join(f"{value:.10g}" for value in np.unique(self._lowest[marked]).tolist()[:3])
            notes.append(
                f"{number} pixels hold {values} in every frame looked at, as gaps and dead pixels do; they are ignored"
            )
        if number := np.count_nonzero(hot):
            first = ", ".join(f"({y}, {x})" for y, x in np.argwhere(hot)[:3].tolist())
            notes.append(
                f"{number} pixels are hot, at {first}{' …' if number > 3 else ''}: far brighter than those around "
                "them in every frame looked at; they are ignored"
            )
        if number := np.count_nonzero(invalid | saturated):
            notes.append(f"{number} pixels are saturated, or negative in every frame looked at; they are ignored")
        if survey.unusable:
            of = "frames" if survey.looked_at == survey.frames else "frames looked at"
            numbers = ranges_in_words(sorted(survey.unusable))
            notes.append(
                f"{len(survey.unusable)} of {survey.looked_at} {of} show nothing ({survey.reasons()}): "
                f"{numbers}; such frames are set aside"
            )
        return notes
