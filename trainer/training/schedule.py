"""Learning rates as functions of the step."""

from __future__ import annotations

import math
from typing import Protocol

from ptychoflow.trainer.settings import ScheduleKind, ScheduleSettings


class Schedule(Protocol):
    """The learning rate of every step."""

    def rate(self, step: int, finish: float) -> float:
        """Return the rate for a step.

        Args:
            step: steps made so far.
            finish: how much of the training after the end of the stream is done, 0 to 1; 0 while the stream runs.
        """


class ScanSchedule(Schedule):
    """The rates of a network that learns from a running scan.

    Args:
        settings: which schedule.
        upper_rate: the constant rate, or the upper end of the cycles.
    """

    def __init__(self, settings: ScheduleSettings, upper_rate: float) -> None:
        self._settings, self._upper_rate = settings, upper_rate

    def rate(self, step: int, finish: float) -> float:
        """Return the rate for a step, lowered late in the training after the end of the stream."""
        hold, fraction = self._settings.finish_hold, self._settings.finish_fraction
        rate = self._upper_rate if self._settings.kind is ScheduleKind.CONSTANT else self._cyclic_rate(step)
        lowered = max(0.0, min(finish, 1.0) - hold) / (1.0 - hold)
        return rate * (1.0 - lowered * (1.0 - fraction))

    def _cyclic_rate(self, step: int) -> float:
        """L. N. Smith, "Cyclical learning rates for training neural networks" (2017), policy `exp_range`."""
        lower_rate, gamma = self._settings.lower_rate, self._settings.gamma
        half_cycles = step / self._settings.half_cycle_steps
        cycle = math.floor(1 + half_cycles / 2)
        height = max(0.0, 1.0 - abs(half_cycles - 2 * cycle + 1))
        return lower_rate + (self._upper_rate - lower_rate) * height * gamma**step
