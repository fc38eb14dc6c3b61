"""What a training tells of its steps, and how long their parts took."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from ptychoflow.trainer.interface.agreement import Agreed
from ptychoflow.trainer.interface.batch import Batch
from ptychoflow.trainer.training.learner import Learner


class Stopwatch:
    """Adds up the time spent in one part of the steps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time spent inside."""
        started = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - started

    def reset_ms(self, steps: int) -> float:
        """Return mean milliseconds per step, and start again from zero."""
        seconds, self.seconds = self.seconds, 0.0
        return 1000.0 * seconds / max(1, steps)


class Report(ABC):
    """Is told of every step, and of how long its parts took."""

    def __init__(self) -> None:
        self.load, self.train = Stopwatch(), Stopwatch()

    @abstractmethod
    def step_skipped(self, text: str) -> None:
        """Take in a step that changed nothing, and say why."""

    @abstractmethod
    def step_done(self, learner: Learner[Any], loss: Tensor, batch: Batch | None, agreed: Agreed) -> None:
        """Take in a step of the learner, of whose loss this rank's share is `loss`, (terms,)."""

    def close(self) -> None:
        """Training has ended."""
