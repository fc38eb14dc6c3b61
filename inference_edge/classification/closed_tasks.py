"""Which tasks are done with, kept in the run's folder: a run that is resumed must not classify them again."""

from __future__ import annotations

from pathlib import Path

import msgspec

from streaming.errors import UserError
from streaming.image_events import TaskScores


class ClosedTask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A task all of whose images were classified."""

    task: int
    images: int
    scores: TaskScores | None


class ClosedTasks:
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

    def read(self) -> list[ClosedTask]:
        """Return the tasks that are done with."""
        return [msgspec.json.decode(path.read_bytes(), type=ClosedTask) for path in self._directory.glob("task_*.json")]

    def write(self, task: ClosedTask) -> None:
        """Keep a task.

        Raises:
            UserError: the disk does not take it.
        """
        path = self._directory / f"task_{task.task:04d}.json"
        try:
            unfinished = path.with_suffix(".part")
            unfinished.write_bytes(msgspec.json.format(msgspec.json.encode(task)))
            unfinished.replace(path)
        except OSError as error:
            raise self._cannot_write(error) from error

    def _cannot_write(self, error: OSError) -> UserError:
        return UserError(f"cannot write {self._directory}: {error.strerror}; check permission and disk space")
