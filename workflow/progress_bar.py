"""Shows on standard error how far something long is: a bar on a terminal, a line in the log now and then elsewhere."""

from __future__ import annotations

import logging
import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

log = logging.getLogger(__name__)

LINE_PERIOD_S = 10.0


class ProgressBar:
    """A context manager; `show` may be called as often as one likes, from one thread."""

    def __init__(self, console: Console) -> None:
        self._bar = _bar(console) if console.is_terminal else None
        self._task = self._bar.add_task("", total=None) if self._bar else None
        self._next_line_s = time.monotonic() + LINE_PERIOD_S

    def __enter__(self) -> Self:
        """Show it."""
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the last state on the terminal."""
        if self._bar:
            self._bar.stop()

    def show(self, text: str, done: int, total: int | None) -> None:
        """Say what is done, how much of it, and of how much if that is known."""
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=done, total=total, description=text)
        elif time.monotonic() >= self._next_line_s:
            log.info("%s", text if total is None else f"{text} ({done} of {total})")
            self._next_line_s = time.monotonic() + LINE_PERIOD_S


def _bar(console: Console) -> Progress:
    return Progress(
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TaskProgressColumn(),
        TextColumn("{task.description}", markup=False),  # names of files may hold brackets
        TimeRemainingColumn(),
        console=console,
    )
