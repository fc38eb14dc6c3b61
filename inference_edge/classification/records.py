"""What the edge has classified, kept in the run's folder: an edge that is started again must not classify it again.

What was classified on arrival with the weights of that moment would otherwise be scored with newer ones.
"""

from __future__ import annotations

import msgspec

from ptychoflow.streaming.durable_file import make_folder_durably, write_durably
from ptychoflow.streaming.errors import writing
from ptychoflow.streaming.kept_struct import read_kept
from ptychoflow.streaming.run_folder import RunFolder


class TaskRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far one task is."""

    task: int
    complete: bool
    """Nothing of it will come any more."""
    next_index: int
    """Images below are done with; they come in the order of their index."""
    images: int
    """Classified."""
    scored: int
    """Validation images among them."""
    right_top1: int
    right_top5: int
    versions: tuple[int, int] | None
    """Oldest and newest weights that contributed."""


class TaskRecords:
    """One small file per task.

    Args:
        folder: of the run.

    Raises:
        UserError: the folder cannot be made.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        with writing(folder.tasks):
            make_folder_durably(folder.tasks)

    def read(self) -> list[TaskRecord]:
        """Return the records of an edge before this one.

        Raises:
            UserError: one is damaged.
        """
        advice = "remove it to have the task classified again, with the weights of now"
        return [read_kept(path, TaskRecord, advice=advice) for path in self._folder.task_files().values()]

    def write(self, record: TaskRecord) -> None:
        """Keep a task's newest record.

        Raises:
            UserError: the disk does not take it.
        """
        with writing(self._folder.tasks):
            write_durably(self._folder.task_file(record.task), msgspec.json.format(msgspec.json.encode(record)))
