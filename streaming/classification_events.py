"""Telemetry events of a stream of labelled images, whose perspectives are tasks."""

from __future__ import annotations

from ptychoflow.streaming.event_base import Event


class ClassificationInfo(Event, tag="classification_info", frozen=True):
    """What is being streamed; sent once by the acquisition."""

    source: str
    class_names: list[list[str]]
    """Of each task."""
    images: list[int]
    """Of each task, validation images included."""
    channels: int
    stored_px: int

    @property
    def classes(self) -> int:
        """Of all tasks together."""
        return sum(map(len, self.class_names))


class TaskScores(Event, tag="task_scores", frozen=True):
    """How the edge has classified the images of one task, each once on arrival with the weights of that moment.

    Shares of its validation images, from which nothing learns.
    """

    task: int
    images: int
    """Classified so far."""
    scored: int
    """Validation images among them."""
    top1: float
    top5: float
    """The right class is among the five likeliest."""
    oldest_version: int
    """Of the weights that contributed."""
    newest_version: int


class TaskAccuracies(Event, tag="task_accuracies", frozen=True):
    """Accuracies on the validation images of every task seen, of one and the same network, after a task was learnt."""

    after_task: int
    step: int
    top1: dict[int, float]
    """By task; a task without validation images is left out."""
    top5: dict[int, float]


def chance(classes: int, *, top: int) -> float:
    """Return the accuracy of guessing among all classes."""
    return min(top, classes) / classes
