"""How many frames to image at once."""

from __future__ import annotations

NEWEST_SHARE = 0.2
"""Weight of the newest frames in the mean time per frame."""
TOGETHER = 64
"""Frames worth gathering: what the edge does once for all of them takes about as long as the network for one."""


class BatchSizer:
    """Learns what imaging a frame takes, and images no more at once than the latency that is asked for allows.

    Frames are gathered: several batches of a network whose batches are small. While imaging keeps up, a frame waits at
    most for those that were gathered before, so imaging them may take half of that latency.

    Args:
        latency_max_s: seconds from a frame's arrival to its image, while frames do not come faster than imaging goes.
        batch_max: frames that the network is given together at most.
    """

    def __init__(self, *, latency_max_s: float, batch_max: int) -> None:
        self._latency_max_s, self._batch_max = latency_max_s, batch_max
        self._frames_max = max(batch_max, TOGETHER - TOGETHER % batch_max)
        self._frame_s: float | None = None
        self._newest = 0, 0.0
        """How many frames were imaged last, and the seconds that this took."""

    @property
    def measured(self) -> bool:
        """Whether it is known what imaging a frame takes."""
        return self._frame_s is not None

    @property
    def frames(self) -> int:
        """Frames to image at once at most: one batch, or several whole ones."""
        if not self._frame_s:
            return self._batch_max
        return max(1, self._whole(min(self._frames_max, int(self._latency_max_s / 2 / self._frame_s))))

    def frames_of(self, waiting: int) -> int:
        """Return how many to image at once while so many wait: those behind the last whole batch wait for others.

        More than `frames`, if more wait and it might be worth it: a batch may take as long as a larger one.
        """
        at_most = self.frames
        if waiting > at_most:
            at_most = max(at_most, self._worth_trying)
        return min(at_most, max(self._batch_max, self._whole(waiting)))

    def record(self, frames: int, seconds: float) -> None:
        """Learn from frames that were imaged at once."""
        self._newest = frames, seconds
        newest_s = seconds / frames
        self._frame_s = newest_s if self._frame_s is None else self._frame_s + NEWEST_SHARE * (newest_s - self._frame_s)

    def behind(self, waiting: int) -> bool:
        """Whether imaging all frames that wait takes longer than the latency that is asked for."""
        return self._frame_s is not None and waiting * self._frame_s > self._latency_max_s

    @property
    def _worth_trying(self) -> int:
        """Twice as many as the last time, if they take no longer than the latency even where each takes its time."""
        frames, seconds = self._newest
        return self._whole(min(self._frames_max, 2 * frames)) if 2 * seconds < self._latency_max_s else 0

    def _whole(self, frames: int) -> int:
        return frames if frames <= self._batch_max else frames - frames % self._batch_max
