"""What viewers are told of images whose classes come task by task."""

from __future__ import annotations

from ptychoflow.dashboard import models
from ptychoflow.streaming.events import AnyEvent, ClassificationInfo, TaskAccuracies, TaskScores, chance

NAMES_SHOWN = 8
TASKS_KEPT = 200
"""The newest so many tasks are told of."""


class TaskBoard:
    """Follows the tasks of one run; the newest event about a task counts."""

    def __init__(self) -> None:
        self._info: ClassificationInfo | None = None
        self._live: dict[int, TaskScores] = {}
        self._after: dict[int, TaskAccuracies] = {}

    def take(self, event: AnyEvent) -> None:
        """Take in one event; kinds that say nothing of tasks are ignored."""
        match event:
            case ClassificationInfo():
                self._info = event
            case TaskScores(task=task):
                self._live[task] = event
            case TaskAccuracies(after_task=task):
                self._after[task] = event

    def answer(self) -> models.Classification | None:
        """Return how the tasks stand, None where no images are streamed."""
        info = self._info
        if info is None:
            return None
        newest = max(self._live.keys() | self._after.keys(), default=0)
        shown = range(max(0, newest - TASKS_KEPT + 1), len(info.class_names))[:TASKS_KEPT]
        return models.Classification(
            source=info.source,
            classes=info.classes,
            images_expected=sum(info.images),
            stored_px=info.stored_px,
            chance_top1=chance(info.classes, top=1),
            chance_top5=chance(info.classes, top=5),
            tasks=[self._task(task, info) for task in shown],
            accuracies=[
                models.AccuracyRow(after_task=task, step=self._after[task].step, top1=self._after[task].top1)
                for task in sorted(self._after)[-TASKS_KEPT:]
            ],
        )

    def _task(self, task: int, info: ClassificationInfo) -> models.TaskRow:
        live, names = self._live.get(task), info.class_names[task]
        last = self._after[max(self._after)] if self._after else None
        return models.TaskRow(
            task=task,
            class_names=names[:NAMES_SHOWN],
            classes=len(names),
            images_expected=info.images[task],
            images=live.images if live else 0,
            scored=live.scored if live else 0,
            top1=live.top1 if live else None,
            top5=live.top5 if live else None,
            newest_version=live.newest_version if live else None,
            now_top1=last.top1.get(task) if last else None,
            now_top5=last.top5.get(task) if last else None,
        )
