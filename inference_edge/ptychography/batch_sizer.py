"""How many frames to image at once."""

from __future__ import annotations

NEWEST_SHARE = 0.2
"""Weight of the newest batch in the mean time per frame."""


class BatchSizer:
    """Learns what imaging a frame takes, and keeps batches within the latency that is asked for.

    While imaging keeps up, a frame waits for one batch before its own at most, so a batch may take half of that.

    Args:
        latency_max_s: seconds from a frame's arrival to its image, while frames do not come faster than imaging goes.
        batch_max: frames in a batch at most.
    """

    def __init__(self, *, latency_max_s: float, batch_max: int) -> None:
        self._latency_max_s, self._batch_max = latency_max_s, batch_max
        self._frame_s: float | None = None

    @property
    def measured(self) -> bool:
        """Whether it is known what imaging a frame takes."""
        return self._frame_s is not None

    @property
    def frames(self) -> int:
        """Frames to image at once at most."""
        if not self._frame_s:
            return self._batch_max
        return max(1, min(self._batch_max, int(self._latency_max_s / 2 / self._frame_s)))

    def record(self, frames: int, seconds: float) -> None:
        """Learn from a batch."""
        newest_s = seconds / frames
        self._frame_s = newest_s if self._frame_s is None else self._frame_s + NEWEST_SHARE * (newest_s - self._frame_s)

    def behind(self, waiting: int) -> bool:
        """Whether imaging all frames that wait takes longer than the latency that is asked for."""
        return self._frame_s is not None and waiting * self._frame_s > self._latency_max_s
