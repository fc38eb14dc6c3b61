"""Where the time of the steps went."""

from __future__ import annotations

import logging
from typing import Any

from torch import Tensor

from ptychoflow.buffer import RehearsalBuffer
from ptychoflow.trainer.checkpoints.state_file import State
from ptychoflow.trainer.interface.agreement import Agreed
from ptychoflow.trainer.interface.batch import Batch
from ptychoflow.trainer.training.learner import Learner
from ptychoflow.trainer.training.report import Report

BUFFER_TIMES = ("waited", "populate", "augment")

log = logging.getLogger(__name__)


class TimeReport(Report):
    """Sums the steps of a training.

    Args:
        buffer: the rehearsal buffer, if the strategy has one.
    """

    def __init__(self, buffer: RehearsalBuffer | None) -> None:
        super().__init__()
        self.steps = self.samples = self.skipped = 0
        self._buffer = buffer
        self._buffer_before_s = dict.fromkeys(BUFFER_TIMES, 0.0)

    def step_skipped(self, text: str) -> None:
        """Count and log it."""
        self.skipped += 1
        log.warning("%s", text)

    def step_done(self, learner: Learner[Any], loss: Tensor, batch: Batch | None, agreed: Agreed) -> None:
        """Count the step."""
        self.steps += 1
        self.samples += agreed.samples

    def state(self) -> State:
        """Return all sums, of this rank, as plain values."""
        return {
            "steps": self.steps,
            "samples": self.samples,
            "skipped": self.skipped,
            "load_s": self.load.seconds,
            "train_s": self.train.seconds,
            "buffer_s": self._buffer_s(),
        }

    def restore(self, state: State) -> None:
        """Go on from what `state` returned."""
        self.steps, self.samples, self.skipped = state["steps"], state["samples"], state["skipped"]
        self.load.seconds, self.train.seconds = state["load_s"], state["train_s"]
        self._buffer_before_s = dict(state["buffer_s"])

    def breakdown_ms(self) -> dict[str, float]:
        """Return mean milliseconds per step: of loading and training, which add up, and of the buffer beside them."""
        buffer_s = self._buffer_s()
        seconds = {
            "load": self.load.seconds - buffer_s["waited"],
            "train": self.train.seconds,
            "buffer_wait": buffer_s["waited"],
            "populate": buffer_s["populate"],
            "augment": buffer_s["augment"],
        }
        return {name: 1000.0 * value / max(1, self.steps) for name, value in seconds.items()}

    def buffer_figures(self) -> dict[str, Any] | None:
        """Return what the buffer held and hid, or None without one."""
        if self._buffer is None:
            return None
        stats, buffer_s = self._buffer.stats(), self._buffer_s()
        background_s = buffer_s["populate"] + buffer_s["augment"]
        return {
            "capacity": stats.capacity,
            "size": sum(stats.size_per_rank.values()),
            "transport": stats.transport,
            "hidden_fraction": 1.0 - buffer_s["waited"] / background_s if background_s > 0 else 1.0,
        }

    def _buffer_s(self) -> dict[str, float]:
        """Return the buffer's times, those before a checkpoint that training went on from included."""
        if self._buffer is None:
            return self._buffer_before_s
        stats = self._buffer.stats()
        since_s = {"waited": stats.waited_s, "populate": stats.populate_s, "augment": stats.augment_s}
        return {name: self._buffer_before_s[name] + since_s[name] for name in BUFFER_TIMES}
