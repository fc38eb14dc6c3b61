"""Where the time of the steps went."""

from __future__ import annotations

import logging
from typing import Any

from torch import Tensor

from buffer import RehearsalBuffer
from trainer.agreement import Agreed
from trainer.batch import Batch
from trainer.learner import Learner
from trainer.reporting import Report

log = logging.getLogger(__name__)


class TimeReport(Report):
    """Sums the steps of all tasks.

    Args:
        buffer: the rehearsal buffer, if the strategy has one.
    """

    def __init__(self, buffer: RehearsalBuffer | None) -> None:
        super().__init__()
        self.steps = self.samples = self.skipped = 0
        self._buffer = buffer

    def warn(self, text: str) -> None:
        """Log it."""
        self.skipped += 1
        log.warning("%s", text)

    def step_done(self, learner: Learner[Any], loss: Tensor, batch: Batch | None, agreed: Agreed) -> None:
        """Count the step."""
        self.steps += 1
        self.samples += agreed.samples

    def breakdown_ms(self) -> dict[str, float]:
        """Return mean milliseconds per step: of loading and training, which add up, and of the buffer beside them."""
        stats = self._buffer.stats() if self._buffer is not None else None
        waited_s = stats.waited_s if stats is not None else 0.0
        seconds = {
            "load": self.load.seconds - waited_s,
            "train": self.train.seconds,
            "buffer_wait": waited_s,
            "populate": stats.populate_s if stats is not None else 0.0,
            "augment": stats.augment_s if stats is not None else 0.0,
        }
        return {name: 1000.0 * value / max(1, self.steps) for name, value in seconds.items()}

    def buffer_figures(self) -> dict[str, Any] | None:
        """Return what the buffer held and hid, or None without one."""
        if self._buffer is None:
            return None
        stats = self._buffer.stats()
        return {
            "capacity": stats.capacity,
            "size": sum(stats.size_per_rank.values()),
            "transport": stats.transport,
            "hidden_fraction": stats.hidden_fraction,
        }
