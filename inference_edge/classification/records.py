"""What the edge has classified, kept in the run's folder: an edge that is started again must not classify it again.

What was classified on arrival with the weights of that moment would otherwise be scored with newer ones.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from ptychoflow.streaming.errors import UserError


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
        directory: made if need be.

    Raises:
        UserError: the folder cannot be made.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._cannot_write(error) from error

    def read(self) -> list[TaskRecord]:
        """Return the records of an edge before this one."""
        return [msgspec.json.decode(path.read_bytes(), type=TaskRecord) for path in self._directory.glob("task_*.json")]

    def write(self, record: TaskRecord) -> None:
        """Keep a task's newest record.

        Raises:
            UserError: the disk does not take it.
        """
        path = self._directory / f"task_{record.task:04d}.json"
        try:
            unfinished = path.with_suffix(".part")
            unfinished.write_bytes(msgspec.json.format(msgspec.json.encode(record)))
            unfinished.replace(path)
        except OSError as error:
            raise self._cannot_write(error) from error

    def _cannot_write(self, error: OSError) -> UserError:
        return UserError(f"cannot write {self._directory}: {error.strerror}; check permission and disk space")
