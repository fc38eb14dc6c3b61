"""The learning rate of class-incremental training, which starts again with each task.

Sources: P. Goyal et al., "Accurate, large minibatch SGD" (2017), for warm-up and linear scaling; T. Bouvier,
"Distributed Rehearsal Buffers for Continual Learning at Scale" (2024), section 5.1.3, for the start with each task and
the cap.
"""

from __future__ import annotations

from ptychoflow.trainer.pipelines.classification.settings import TaskScheduleSettings
from ptychoflow.trainer.training.schedule import Schedule


class TaskSchedule(Schedule):
    """Warm-up and decays of the task that is being learnt.

    Args:
        settings: warm-up, decays, cap.
        base_rate: of one rank.
        minibatches: of all ranks that make one step.
    """

    def __init__(self, settings: TaskScheduleSettings, base_rate: float, *, minibatches: int) -> None:
        self._settings = settings
        self._rate = base_rate * min(minibatches, settings.largest_scale)
        self._first_step, self._steps_per_epoch = 0.0, 1.0

    def begin_task(self, *, step: float, steps_per_epoch: float) -> None:
        """Start again at `step`."""
        self._first_step, self._steps_per_epoch = step, steps_per_epoch

    def rate(self, step: int, finish: float) -> float:
        """Return the rate for a step; training after the end of the stream goes on with the last one."""
        steps = step - self._first_step
        epoch = steps / self._steps_per_epoch
        warm_up_steps = self._settings.warm_up_epochs * self._steps_per_epoch
        if steps + 1 < warm_up_steps:
            return self._rate * (steps + 1) / warm_up_steps
        passed = [(since, factor) for since, factor in self._settings.decays if epoch >= since]
        return self._rate * (max(passed)[1] if passed else 1.0)
