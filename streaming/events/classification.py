"""What acquisition, edge and trainer say of a stream of labelled images, whose perspectives are tasks."""

from __future__ import annotations

import math

import msgspec

from ptychoflow.streaming.events.base import Event, Whole


class ClassificationInfo(Event, tag="classification_info", frozen=True):
    """What is being streamed; sent once by the acquisition."""

    source: str
    class_names: list[list[str]]
    """Of each task."""
    images: list[Whole]
    """Of each task, validation images included."""
    channels: Whole
    stored_px: Whole
    validation: list[list[Whole]] = msgspec.field(default_factory=list)
    """Validation images of each class of each task; earlier versions do not tell."""

    @property
    def classes(self) -> int:
        """Of all tasks together."""
        return sum(map(len, self.class_names))


class TaskScores(Event, tag="task_scores", frozen=True):
    """How the edge has classified the images of one task, each once on arrival with the weights of that moment.

    Shares of its validation images, from which nothing learns.
    """

    task: Whole
    images: Whole
    """Classified so far."""
    scored: Whole
    """Validation images among them."""
    top1: float
    top5: float
    """The right class is among the five likeliest."""
    oldest_version: Whole
    """Of the weights that contributed."""
    newest_version: Whole


class TaskAccuracies(Event, tag="task_accuracies", frozen=True):
    """Accuracies on the validation images of every task seen, of one and the same network, after a task was learnt."""

    after_task: Whole
    step: Whole
    top1: dict[Whole, float]
    """By task; a task without validation images is left out."""
    top5: dict[Whole, float]


def chance(info: ClassificationInfo, *, top: int, seen: int) -> float:
    """Return the accuracy of always naming the same classes, those that are right most often, NaN where there are none.

    It is the best that can be said without looking at the images.

    Args:
        info: tells how many validation images of each class there are; where it does not, as many of each.
        top: so many classes are named.
        seen: the accuracy is the mean over so many tasks, the first ones.
    """
    counts = (info.validation or [[1] * len(names) for names in info.class_names])[:seen]
    tasks = [task for task in counts if sum(task) > 0]
    shares = sorted((count / sum(task) / len(tasks) for task in tasks for count in task), reverse=True)
    return math.fsum(shares[:top]) if shares else math.nan
