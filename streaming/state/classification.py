"""How classes that come task by task are learnt: accuracies live, and of the network after each task."""

from __future__ import annotations

import msgspec

from ptychoflow.streaming.events import ClassificationInfo, TaskAccuracies, TaskScores, Telemetry, TrainingResumed
from ptychoflow.streaming.state.rows import newest_of
from ptychoflow.streaming.state.series import Series

TASKS_KEPT = 1000
"""The newest so many tasks are remembered."""


class TaskHistory:
    """Follows the tasks of one run; the newest event about a task counts.

    Args:
        curve: gets every live score.
    """

    def __init__(self, curve: Series) -> None:
        self.info: ClassificationInfo | None = None
        self._curve = curve
        self._live: dict[int, TaskScores] = {}
        self._after: dict[tuple[int, int], TaskAccuracies] = {}

    @property
    def tasks(self) -> int:
        """How many there are."""
        return 0 if self.info is None else len(self.info.class_names)

    @property
    def newest(self) -> TaskScores | None:
        """What was told last of the task that comes."""
        newest = self._curve.newest
        return newest if isinstance(newest, TaskScores) else None

    def live(self, task: int) -> TaskScores | None:
        """Return how the edge has classified a task."""
        return self._live.get(task)

    def images_expected(self, task: int) -> int:
        """Return how many images of a task will come."""
        return self.info.images[task] if self.info is not None and task < len(self.info.images) else 0

    def after(self) -> list[TaskAccuracies]:
        """Return the accuracies after each task that was learnt, in the order of the tasks."""
        newest = {task: self._after[task, step] for task, step in sorted(self._after)}
        return [one for task, one in newest.items() if 0 <= task < self.tasks]

    def apply(self, telemetry: Telemetry, *, at_s: float) -> None:
        """Take in one event; kinds that say nothing of tasks are ignored."""
        match telemetry.event:
            case ClassificationInfo() as info:
                self.info = info
            case TaskScores(task=task) as scores:
                self._live[task] = scores
                self._live = newest_of(self._live, TASKS_KEPT) if len(self._live) > TASKS_KEPT else self._live
                self._curve.append(at_s, msgspec.structs.asdict(scores), source=scores)
            case TaskAccuracies(after_task=task, step=step, top1=top1, top5=top5) as accuracies:
                self._after[task, step] = msgspec.structs.replace(
                    accuracies, top1=newest_of(top1, TASKS_KEPT), top5=newest_of(top5, TASKS_KEPT)
                )
                self._after = newest_of(self._after, TASKS_KEPT)
            case TrainingResumed(step=step):
                self._after = {key: one for key, one in self._after.items() if one.step <= step}
            case _:
                pass
