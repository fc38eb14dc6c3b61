"""Frames and positions of a series come apart: joined by trigger number, late, in any order, twice, or never."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.detectors.arrivals import EncodedImage, FramesCame
from ptychoflow.acquisition.detectors.settings import JoinSettings
from ptychoflow.acquisition.scan import Ending
from ptychoflow.streaming.events import Missing, Unplaced


@dataclass(frozen=True)
class PlacedFrames:
    """Frames with their positions; at least one."""

    triggers: Sequence[int]
    positions_m: Sequence[tuple[float, float]]
    """Each (y, x)."""
    images: Sequence[EncodedImage]
    received_at_s: Sequence[float]

    def __len__(self) -> int:
        return len(self.triggers)

    def __getitem__(self, some: slice) -> PlacedFrames:
        return PlacedFrames(self.triggers[some], self.positions_m[some], self.images[some], self.received_at_s[some])

    def select(self, chosen: npt.NDArray[np.bool_]) -> PlacedFrames:
        """Return the frames for which `chosen`, bool (n,), is true; itself where that is all of them."""
        if chosen.all():
            return self
        places = np.flatnonzero(chosen).tolist()
        return PlacedFrames(
            [self.triggers[place] for place in places],
            [self.positions_m[place] for place in places],
            [self.images[place] for place in places],
            [self.received_at_s[place] for place in places],
        )

    @classmethod
    def joined(cls, parts: Sequence[PlacedFrames]) -> PlacedFrames:
        """Return frames one after the other."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            [trigger for part in parts for trigger in part.triggers],
            [position for part in parts for position in part.positions_m],
            [image for part in parts for image in part.images],
            [at_s for part in parts for at_s in part.received_at_s],
        )


class PlacedQueue:
    """Frames with their positions that wait to be taken."""

    def __init__(self) -> None:
        self._waiting: deque[PlacedFrames] = deque()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, frames: PlacedFrames) -> None:
        """Let frames wait behind the others."""
        self._waiting.append(frames)
        self._length += len(frames)

    def take(self, most: int) -> PlacedFrames:
        """Return the first ones, so many at most; there must be one."""
        parts, left = [], min(most, self._length)
        self._length -= left
        while left:
            first = self._waiting.popleft()
            if len(first) > left:
                self._waiting.appendleft(first[left:])
                first = first[:left]
            parts.append(first)
            left -= len(first)
        return PlacedFrames.joined(parts)

    def triggers(self) -> Iterator[tuple[int, tuple[float, float]]]:
        """Yield the triggers and positions of all."""
        for frames in self._waiting:
            yield from zip(frames.triggers, frames.positions_m, strict=True)

    def clear(self) -> None:
        """Let go of all."""
        self._waiting.clear()
        self._length = 0


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A frame without position."""

    images: Sequence[EncodedImage]
    place: int
    """Among the images."""
    at_s: float


@dataclass
class _Samples:
    """The samples of one frame's position that have come."""

    seen: int = 0
    """One bit for each sample."""
    y_m: float = 0.0
    x_m: float = 0.0


class SeriesJoiner:
    """Joins one series. Times are those at which the receiver took messages in, so that a resume decides the same.

    Args:
        settings: origins, samples for each frame, how long to wait.
    """

    def __init__(self, settings: JoinSettings) -> None:
        self.placed = PlacedQueue()
        """Frames with their position, in the order in which the later of the two came."""
        self.unplaced: Counter[Unplaced] = Counter()
        """Frames that were given up since this was cleared."""
        self.repeated = 0
        """Frames that came again."""
        self.refused = 0
        """Trigger numbers below 0 or beyond what a series can have."""
        self.positions_over = False
        """No more positions will come."""
        self.first_frame_s: float | None = None
        self.last_frame_s: float | None = None
        self.last_arrival_s: float | None = None
        self.ending: Ending | None = None
        self._ended_s = 0.0
        self._listening_s = -math.inf
        """Since when a receiver listens, where there was another one before it."""
        self._settings = settings
        self._waiting: dict[int, _Waiting] = {}
        self._positions: dict[int, tuple[float, float]] = {}
        self._samples: dict[int, _Samples] = {}
        self._came: set[int] = set()
        self._highest = -1

    def add_frame(self, number: int, image: EncodedImage, *, at_s: float) -> None:
        """Take in a frame."""
        self._heard(at_s)
        trigger = number - self._settings.first_frame
        if not 0 <= trigger < self._settings.most_frames:
            self.refused += 1
        elif trigger in self._came:
            self.repeated += 1
        else:
            self._came.add(trigger)
            self._highest = max(self._highest, trigger)
            self.first_frame_s = at_s if self.first_frame_s is None else self.first_frame_s
            self.last_frame_s = at_s
            self._waiting[trigger] = _Waiting((image,), 0, at_s)
            if (position := self._positions.pop(trigger, None)) is not None:
                self._place([trigger], [position])

    def add_frames(self, frames: FramesCame) -> bool:
        """Take in frames, if all of them are new and in order, as `add_frame` one by one; return whether they are."""
        triggers = frames.numbers - self._settings.first_frame
        if not self._highest < int(triggers[0]) or int(triggers[-1]) >= self._settings.most_frames:
            return False
        if (triggers[1:] <= triggers[:-1]).any():
            return False
        came = triggers.tolist()
        times_s = frames.received_at_s.tolist()
        self._heard(times_s[0])
        self._heard(times_s[-1])
        self._came.update(came)
        self._highest = came[-1]
        self.first_frame_s = times_s[0] if self.first_frame_s is None else self.first_frame_s
        self.last_frame_s = times_s[-1]
        for place, (trigger, at_s) in enumerate(zip(came, times_s, strict=True)):
            self._waiting[trigger] = _Waiting(frames.images, place, at_s)
        known = [trigger for trigger in came if trigger in self._positions]
        if known:
            self._place(known, [self._positions.pop(trigger) for trigger in known])
        return True

    def decides_within(self, first_s: float, last_s: float, *, idle_s: float) -> bool:
        """Whether the time from one frame to another may decide anything, though others come in between."""
        oldest_s = min(first_s, self._waits_since_s(next(iter(self._waiting.values())))) if self._waiting else first_s
        return self.ending is not None or last_s - first_s >= idle_s or last_s - oldest_s >= self._settings.wait_s

    def add_positions(
        self, numbers: npt.NDArray[np.int64], positions_m: npt.NDArray[np.float64], *, at_s: float
    ) -> None:
        """Take in samples of position that came; the first one with a number counts."""
        self._heard(at_s)
        self._add_samples(numbers, positions_m)

    def know_positions(self, numbers: npt.NDArray[np.int64], positions_m: npt.NDArray[np.float64]) -> None:
        """Take in all positions, known before: that nothing comes after them is no silence."""
        self._add_samples(numbers, positions_m)
        self.positions_over = True

    def end(self, ending: Ending, *, at_s: float) -> None:
        """Take in that the series is over; the first word counts."""
        if self.ending is None:
            self.ending, self._ended_s = ending, at_s

    def listen(self, now_s: float) -> None:
        """Take in that a receiver listens from now on: a silence before that means nothing, and what waits waits anew.

        Its clock may have been set back since the receiver before: nothing of what came then waits longer for that.
        """
        self._listening_s = now_s
        if self.last_arrival_s is not None:
            self.last_arrival_s = now_s
        if self.first_frame_s is not None and self.last_frame_s is not None:
            self.first_frame_s, self.last_frame_s = min(self.first_frame_s, now_s), min(self.last_frame_s, now_s)
        self._ended_s = now_s
        self._waiting = {
            trigger: replace(frame, at_s=min(frame.at_s, now_s)) for trigger, frame in self._waiting.items()
        }

    def give_up(self, *, now_s: float, idle_s: float) -> None:
        """Give up frames that have waited too long, and a series of which nothing more comes."""
        patience_s = 0.0 if self.ending is not None and self.positions_over else self._settings.wait_s
        while self._waiting:
            trigger, frame = next(iter(self._waiting.items()))
            if now_s - self._waits_since_s(frame) < patience_s:
                break
            del self._waiting[trigger]
            self.unplaced[Unplaced.NO_POSITION] += 1
        if self.ending is None and self.last_arrival_s is not None and now_s - self.last_arrival_s >= idle_s:
            self.end(Ending.STALLED, at_s=self.last_arrival_s + idle_s)

    def finished(self, *, now_s: float) -> bool:
        """Whether nothing of the series is on its way any more, as far as one can wait."""
        if self.ending is None or self._waiting:
            return False
        all_said = self.positions_over and self.ending is not Ending.NEXT_SERIES
        return all_said or now_s - self._ended_s >= self._settings.wait_s

    def give_up_all(self) -> None:
        """Give up every frame that waits: the series has too little to begin with."""
        self.unplaced[Unplaced.SERIES_UNUSABLE] += len(self._waiting) + len(self.placed)
        self._waiting.clear()
        self.placed.clear()

    def missing(self) -> Counter[Missing]:
        """Return how many frames should have come and did not, when the series is finished."""
        gaps = self._highest + 1 - len(self._came)
        only_positions = sum(trigger > self._highest for trigger in self._positions)
        return +Counter({Missing.GAP: gaps, Missing.POSITION_ONLY: only_positions})

    def known_positions_m(self, taken: PlacedFrames) -> npt.NDArray[np.float64] | None:
        """Return where all frames lie (frames, 2), those that were taken and all others; None if that is not known."""
        triggers = {**self._positions, **dict(zip(taken.triggers, taken.positions_m, strict=True))}
        triggers |= dict(self.placed.triggers())
        if not self.positions_over or sorted(triggers) != list(range(len(triggers))) or not triggers:
            return None
        return np.array([triggers[trigger] for trigger in range(len(triggers))])

    def _waits_since_s(self, frame: _Waiting) -> float:
        """Return since when a frame's position could have come: not while nobody listened."""
        return max(frame.at_s, self._listening_s)

    def _heard(self, at_s: float) -> None:
        """Note when something came: positions may have waited for their series for long."""
        self.last_arrival_s = at_s if self.last_arrival_s is None else max(self.last_arrival_s, at_s)

    def _add_samples(self, numbers: npt.NDArray[np.int64], positions_m: npt.NDArray[np.float64]) -> None:
        per_frame = self._settings.samples_per_frame
        counted = numbers - self._settings.first_sample
        inside = (counted >= 0) & (counted < self._settings.most_frames * per_frame)
        # samples before the first frame's are stale, as settings say; they are no mistake
        self.refused += int((counted >= self._settings.most_frames * per_frame).sum())
        samples, places_m = counted[inside].tolist(), positions_m[inside].tolist()
        awaited: dict[int, tuple[float, float]] = {}
        for sample, (y_m, x_m) in zip(samples, places_m, strict=True):
            trigger, which = divmod(sample, per_frame)
            position = (y_m, x_m) if per_frame == 1 else self._add_sample(trigger, which, y_m, x_m)
            if position is None:
                continue
            if trigger in self._waiting:
                awaited.setdefault(trigger, position)
            elif trigger not in self._came:
                self._positions.setdefault(trigger, position)
        if awaited:
            self._place(list(awaited), list(awaited.values()))

    def _add_sample(self, trigger: int, which: int, y_m: float, x_m: float) -> tuple[float, float] | None:
        """Return the mean of all samples of a trigger when the last one has come."""
        if trigger in self._positions:
            return None
        samples = self._samples.setdefault(trigger, _Samples())
        if samples.seen >> which & 1:
            return None
        samples.seen |= 1 << which
        samples.y_m += y_m
        samples.x_m += x_m
        per_frame = self._settings.samples_per_frame
        if samples.seen != (1 << per_frame) - 1:
            return None
        del self._samples[trigger]
        return samples.y_m / per_frame, samples.x_m / per_frame

    def _place(self, triggers: Sequence[int], positions_m: Sequence[tuple[float, float]]) -> None:
        """Place frames that wait, those next to each other together."""
        frames = [self._waiting.pop(trigger) for trigger in triggers]
        known = np.isfinite(np.array(positions_m)).all(axis=1)
        if not known.all():  # the source says that it does not know the others
            self.unplaced[Unplaced.NO_POSITION] += len(frames) - int(known.sum())
        start = 0
        for stop in range(1, len(frames) + 1):
            last = frames[stop - 1]
            if stop < len(frames):
                following = frames[stop]
                alike = following.images is last.images and following.place == last.place + 1
                if alike and known[stop] == known[stop - 1]:
                    continue
            if known[start]:
                self.placed.append(
                    PlacedFrames(
                        triggers[start:stop],
                        positions_m[start:stop],
                        last.images[frames[start].place : last.place + 1],
                        [frame.at_s for frame in frames[start:stop]],
                    )
                )
            start = stop


def missing_in_words(missing: Iterable[tuple[Missing, int]]) -> str:
    """Return counts of missing frames for a person."""
    words = {Missing.GAP: "left out between others", Missing.POSITION_ONLY: "known by their positions alone"}
    return ", ".join(f"{count} {words[how]}" for how, count in missing)
