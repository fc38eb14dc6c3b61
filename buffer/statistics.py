"""What the buffer has measured about itself."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field


@dataclass(frozen=True)
class StepTiming:
    """Seconds that one step, from `take` to `take`, cost."""

    waited_s: float
    """Time `take` blocked."""
    offered_s: float
    """Time `offer` needed to copy the candidates, on the caller's thread."""
    populate_s: float
    """Insertion, in the background."""
    augment_s: float
    """Draw, in the background, waiting for other ranks included."""


@dataclass(frozen=True)
class BufferStats:
    """Measured since the buffer was made, on this rank unless it says otherwise."""

    rank: int
    world_size: int
    transport: str
    capacity: int
    """Items over all ranks."""
    capacity_rank: int
    capacity_per_class: tuple[int, ...]
    """This rank's quota of every class; a policy without quotas may exceed one, never the rank's capacity."""
    size: int
    """Live items on this rank."""
    size_per_class: dict[int, int]
    size_per_rank: dict[int, int]
    """Live items of every rank still in the group, as last heard."""
    offered: int
    """Calls of `offer`."""
    offered_samples: int
    candidates: int
    accepted: int
    replaced: int
    updated: int
    """Items of this rank that `update_items` rewrote, on whichever rank it was called."""
    draws: int
    """Draws made; one that was never taken because an offer followed counts too."""
    drawn: int
    """Items drawn."""
    taken: int
    """Calls of `take` that returned a draw."""
    waits: int
    """Those for which the background was behind."""
    served: int
    """Items delivered to other ranks."""
    served_in_place: int
    """Those of them that were written straight into the other rank's output."""
    waited_s: float
    offered_s: float
    populate_s: float
    augment_s: float
    background_cpu_s: float
    """Processor time of the background thread."""
    bytes_copied: int
    """Copied from this rank's store into draws, its own and others'."""
    bytes_received: int
    bytes_sent: int
    lost_ranks: dict[int, str]
    """Ranks that died or stalled, and how that showed."""
    left_ranks: tuple[int, ...]
    """Ranks that closed their buffer."""
    last_step: StepTiming

    @property
    def background_s(self) -> float:
        """Insertion and draws."""
        return self.populate_s + self.augment_s

    @property
    def hidden_fraction(self) -> float:
        """Share of the background work that the caller did not wait for: 1 - waited / background."""
        return 1.0 - self.waited_s / self.background_s if self.background_s > 0 else 1.0


@dataclass
class StepClock:
    """Sums of the steps' times, written by the caller's thread and by the background thread."""

    waited_s: float = 0.0
    offered_s: float = 0.0
    populate_s: float = 0.0
    augment_s: float = 0.0
    taken: int = 0
    waits: int = 0
    last: StepTiming = StepTiming(0.0, 0.0, 0.0, 0.0)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def record_background(self, populate_s: float, augment_s: float) -> None:
        """Count one insertion and draw."""
        with self._lock:
            self.populate_s += populate_s
            self.augment_s += augment_s

    def record_take(self, timing: StepTiming, *, had_to_wait: bool) -> None:
        """Count one step, complete with its take."""
        with self._lock:
            self.waited_s += timing.waited_s
            self.taken += 1
            self.waits += had_to_wait
            self.last = timing

    def record_offer(self, offered_s: float) -> None:
        """Count the time the caller spent in one offer."""
        with self._lock:
            self.offered_s += offered_s
