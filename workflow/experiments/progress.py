"""Shows on standard error how far a long task is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ptychoflow.workflow.logs import stderr_console

log = logging.getLogger(__name__)

LINE_PERIOD_S = 15.0


class TaskProgress:
    """A context manager; `show` may be called as often as one likes.

    Args:
        title: of the task, in few words.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        console = stderr_console()
        self._bar = _bar(console) if console.is_terminal else None
        self._task = self._bar.add_task(title, total=None) if self._bar else None
        self._started_s = self._line_s = time.monotonic()

    def __enter__(self) -> Self:
        """Show it."""
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the last state on the terminal."""
        if self._bar is not None:
            self._bar.stop()

    def show(self, done: int, total: int | None, text: str = "") -> None:
        """Say how much is done, of how much if that is known."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total, description=f"{self._title} {text}")
            return
        now_s = time.monotonic()
        if now_s - self._line_s >= LINE_PERIOD_S:
            self._line_s = now_s
            log.info("%s: %d of %s, %.0f s %s", self._title, done, total or "?", now_s - self._started_s, text)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
