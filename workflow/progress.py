"""Shows on standard error how a run is doing: a live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ptychoflow.streaming.events import Telemetry, WarningRaised
from ptychoflow.streaming.state.run import RunState

log = logging.getLogger(__name__)

LINE_PERIOD_S = 10.0


def log_warning(telemetry: Telemetry) -> None:
    """Log an event that is a warning."""
    if isinstance(telemetry.event, WarningRaised):
        log.warning("%s: %s", telemetry.part, telemetry.event.text)


def describe(state: RunState) -> str:
    """Return how a run is doing in one line."""
    with state.lock:
        counts, step, task = state.ledger.counts(), state.training.newest, state.tasks.newest
        scores = state.perspectives.newest
    texts = [f"acquired {counts.acquired}", f"imaged {counts.inferred}", f"trained on {counts.trained}"]
    if step is None and counts.acquired:
        texts.append("waiting for the first ground truth")
    if step is not None:
        texts += [f"step {step.step}", f"loss {step.loss:.3f}", f"{step.samples_per_s:.0f} samples/s"]
    if scores is not None:
        quality, constant = scores.quality.psnr_db.phase, scores.constant.psnr_db.phase
        texts.append(f"phase PSNR {quality:.1f} dB (constant {constant:.1f})")
    if task is not None:
        texts.append(f"task {task.task}: top-1 {task.top1:.2f}, top-5 {task.top5:.2f}")
    return ", ".join(texts)


class ProgressDisplay:
    """A context manager that shows how a run is doing; call `refresh` a few times a second, from one thread."""

    def __init__(self, state: RunState, console: Console) -> None:
        self._state = state
        self._bar = _bar(console) if console.is_terminal else None
        self._task = self._bar.add_task("waiting for frames", total=None) if self._bar else None
        self._next_line_s = time.monotonic() + LINE_PERIOD_S

    def __enter__(self) -> ProgressDisplay:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self.refresh()
            self._bar.stop()

    def refresh(self) -> None:
        """Show the newest figures."""
        text = describe(self._state)
        if self._bar and self._task is not None:
            with self._state.lock:
                imaged, expected = self._state.ledger.counts().inferred, self._state.frames_expected
            self._bar.update(self._task, completed=imaged, total=expected, description=text)
        elif time.monotonic() >= self._next_line_s:
            log.info("%s", text)
            self._next_line_s = time.monotonic() + LINE_PERIOD_S


def _bar(console: Console) -> Progress:
    return Progress(
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TaskProgressColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
        console=console,
    )
