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


class ScanSchedule:
    """The rates of a network that learns from a running scan.

    Args:
        settings: which schedule.
        upper_rate: the constant rate, or the upper end of the cycles.
    """

    def __init__(self, settings: ScheduleSettings, upper_rate: float) -> None:
        self._settings, self._upper_rate = settings, upper_rate

    def rate(self, step: int, finish: float) -> float:
        """Return the rate of `learning_rate`."""
        return learning_rate(self._settings, self._upper_rate, step=step, finish=finish)


def learning_rate(settings: ScheduleSettings, upper_rate: float, *, step: int, finish: float) -> float:
    """Return the rate for a step.

    Args:
        settings: which schedule.
        upper_rate: the constant rate, or the upper end of the cycles.
        step: steps made so far.
        finish: how much of the training after the end of the stream is done, 0 to 1; 0 while the stream runs.
    """
    rate = upper_rate if settings.kind is ScheduleKind.CONSTANT else _cyclic(settings, upper_rate, step)
    lowered = max(0.0, min(finish, 1.0) - settings.finish_hold) / (1.0 - settings.finish_hold)
    return rate * (1.0 - lowered * (1.0 - settings.finish_fraction))


def _cyclic(settings: ScheduleSettings, upper_rate: float, step: int) -> float:
    """L. N. Smith, "Cyclical learning rates for training neural networks" (2017), policy `exp_range`."""
    half_cycles = step / settings.half_cycle_steps
    cycle = math.floor(1 + half_cycles / 2)
    height = max(0.0, 1.0 - abs(half_cycles - 2 * cycle + 1))
    return settings.lower_rate + (upper_rate - settings.lower_rate) * height * settings.gamma**step
