"""What a run learnt of classes that came task by task: accuracies live, and of the network after each task."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from ptychoflow.streaming.events import (
    AnyEvent,
    ClassificationInfo,
    TaskAccuracies,
    TaskScores,
    TrainingResumed,
    chance,
)
from ptychoflow.trainer.continual_metrics import backward_transfer, forgetting

TOPS = {"top1": 1, "top5": 5}


class TaskHistory:
    """Takes in a run's events; a repeated one does no harm."""

    def __init__(self) -> None:
        self._info: ClassificationInfo | None = None
        self._live: dict[int, TaskScores] = {}
        self._after: dict[int, TaskAccuracies] = {}

    def add(self, event: AnyEvent) -> None:
        """Take in one event; kinds that say nothing of tasks are ignored."""
        match event:
            case ClassificationInfo():
                self._info = event
            case TaskScores(task=task):
                self._live[task] = event
            case TaskAccuracies(after_task=task):
                self._after[task] = event
            case TrainingResumed(step=step):
                self._after = {task: one for task, one in self._after.items() if one.step <= step}

    def summary(self) -> dict[str, Any] | None:
        """Return the section `classification` of the summary; None where no images were streamed.

        `first_pass` is what the edge made of each validation image on arrival; `accuracy_topN[i][j]` is the accuracy
        on task j after task i, the last row that of the final network; averages are over the tasks of that row.
        """
        if self._info is None:
            return None
        rows = {top: self._rows(top) for top in TOPS}
        last = {top: found[-1] if found else [] for top, found in rows.items()}
        return {
            "source": self._info.source,
            "classes": self._info.classes,
            "image_px": self._info.stored_px,
            "chance": {name: chance(self._info.classes, top=top) for name, top in TOPS.items()},
            "tasks": [self._task(number) for number in range(len(self._info.class_names))],
            "first_pass": {top: _mean([getattr(one, top) for one in self._live.values()]) for top in TOPS},
            "average_top1": _mean(last["top1"]),
            "average_top5": _mean(last["top5"]),
            "accuracy_top1": rows["top1"],
            "accuracy_top5": rows["top5"],
            "forgetting": _of_whole(rows["top1"], forgetting),
            "backward_transfer": _of_whole(rows["top1"], backward_transfer),
        }

    def _task(self, number: int) -> dict[str, Any]:
        live = self._live.get(number)
        names = self._info.class_names[number] if self._info is not None else []
        return {
            "index": number,
            "classes": names,
            "images": live.images if live else 0,
            "first_pass": None if live is None else _scores(live),
        }

    def _rows(self, top: str) -> list[list[float | None]]:
        """Return one row per evaluation, as long as there were tasks by then."""
        return [_row(getattr(self._after[task], top), tasks=task + 1) for task in sorted(self._after)]


def _scores(live: TaskScores) -> dict[str, Any]:
    return {
        "top1": live.top1,
        "top5": live.top5,
        "validation_images": live.scored,
        "model_versions": [live.oldest_version, live.newest_version],
    }


def _row(shares: Mapping[int, float], *, tasks: int) -> list[float | None]:
    return [shares.get(task) for task in range(tasks)]


def _mean(shares: list[float | None] | list[float]) -> float | None:
    known = [share for share in shares if share is not None]
    return fmean(known) if known else None


def _of_whole(rows: list[list[float | None]], figure: Any) -> float | None:
    """Return a figure of the matrix, or None where a row or an accuracy is missing."""
    whole = all(len(row) == number + 1 and None not in row for number, row in enumerate(rows))
    return figure(rows) if rows and whole else None
