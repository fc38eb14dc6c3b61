"""Frames and positions of a series come apart: joined by trigger number, late, in any order, twice, or never."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.detectors.arrivals import EncodedImage
from ptychoflow.acquisition.detectors.settings import JoinSettings
from ptychoflow.acquisition.scan import Ending
from ptychoflow.streaming.events import Missing, Unplaced


@dataclass(frozen=True)
class PlacedFrame:
    """A frame with its position."""

    trigger: int
    position_m: tuple[float, float]
    """(y, x)."""
    image: EncodedImage
    received_at_s: float


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
        self.placed: deque[PlacedFrame] = deque()
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
        self._settings = settings
        self._waiting: dict[int, tuple[EncodedImage, float]] = {}
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
            self._waiting[trigger] = image, at_s
            if (position := self._positions.pop(trigger, None)) is not None:
                self._place(trigger, position)

    def add_positions(
        self, numbers: npt.NDArray[np.int64], positions_m: npt.NDArray[np.float64], *, at_s: float
    ) -> None:
        """Take in samples of position; the first one with a number counts."""
        self._heard(at_s)
        per_frame = self._settings.samples_per_frame
        counted = numbers - self._settings.first_sample
        inside = (counted >= 0) & (counted < self._settings.most_frames * per_frame)
        # samples before the first frame's are stale, as settings say; they are no mistake
        self.refused += int((counted >= self._settings.most_frames * per_frame).sum())
        samples, places_m = counted[inside].tolist(), positions_m[inside].tolist()
        for sample, (y_m, x_m) in zip(samples, places_m, strict=True):
            trigger, which = divmod(sample, per_frame)
            if per_frame == 1:
                self._add_position(trigger, (y_m, x_m))
            else:
                self._add_sample(trigger, which, y_m, x_m)

    def end(self, ending: Ending, *, at_s: float) -> None:
        """Take in that the series is over; the first word counts."""
        if self.ending is None:
            self.ending, self._ended_s = ending, at_s

    def listen(self, now_s: float) -> None:
        """Take in that a receiver listens from now on: a silence before that means nothing."""
        if self.last_arrival_s is not None:
            self._heard(now_s)

    def give_up(self, *, now_s: float, idle_s: float) -> None:
        """Give up frames that have waited too long, and a series of which nothing more comes."""
        patience_s = 0.0 if self.ending is not None and self.positions_over else self._settings.wait_s
        while self._waiting:
            trigger, (_, at_s) = next(iter(self._waiting.items()))
            if now_s - at_s < patience_s:
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

    def known_positions_m(self, taken: Sequence[PlacedFrame]) -> npt.NDArray[np.float64] | None:
        """Return where all frames lie (frames, 2), those that were taken and all others; None if that is not known."""
        triggers = {**self._positions, **{frame.trigger: frame.position_m for frame in (*taken, *self.placed)}}
        if not self.positions_over or sorted(triggers) != list(range(len(triggers))) or not triggers:
            return None
        return np.array([triggers[trigger] for trigger in range(len(triggers))])

    def _heard(self, at_s: float) -> None:
        """Note when something came: positions may have waited for their series for long."""
        self.last_arrival_s = at_s if self.last_arrival_s is None else max(self.last_arrival_s, at_s)

    def _add_sample(self, trigger: int, which: int, y_m: float, x_m: float) -> None:
        if trigger in self._positions:
            return
        samples = self._samples.setdefault(trigger, _Samples())
        if samples.seen >> which & 1:
            return
        samples.seen |= 1 << which
        samples.y_m += y_m
        samples.x_m += x_m
        if samples.seen == (1 << self._settings.samples_per_frame) - 1:
            del self._samples[trigger]
            per_frame = self._settings.samples_per_frame
            self._add_position(trigger, (samples.y_m / per_frame, samples.x_m / per_frame))

    def _add_position(self, trigger: int, position_m: tuple[float, float]) -> None:
        if trigger in self._waiting:
            self._place(trigger, position_m)
        elif trigger not in self._came:
            self._positions.setdefault(trigger, position_m)

    def _place(self, trigger: int, position_m: tuple[float, float]) -> None:
        image, at_s = self._waiting.pop(trigger)
        if not any(map(math.isnan, position_m)):
            self.placed.append(PlacedFrame(trigger, position_m, image, at_s))
        else:  # the source says that it does not know
            self.unplaced[Unplaced.NO_POSITION] += 1


def missing_in_words(missing: Iterable[tuple[Missing, int]]) -> str:
    """Return counts of missing frames for a person."""
    words = {Missing.GAP: "left out between others", Missing.POSITION_ONLY: "known by their positions alone"}
    return ", ".join(f"{count} {words[how]}" for how, count in missing)
