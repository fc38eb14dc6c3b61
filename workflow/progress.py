"""Shows on standard error how a run is doing: a live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import threading
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ptychoflow.streaming.events import (
    ClassificationInfo,
    PerspectiveScores,
    ScanInfo,
    TaskScores,
    Telemetry,
    TrainingStep,
    WarningRaised,
)
from ptychoflow.streaming.ledger import FrameLedger

log = logging.getLogger(__name__)

LINE_PERIOD_S = 10.0


class RunProgress:
    """What is known of the run at this moment. Thread-safe: one thread brings telemetry, another one displays."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ledger = FrameLedger()
        self._expected: int | None = None
        self._task: TaskScores | None = None
        self._step: TrainingStep | None = None
        self._scores: PerspectiveScores | None = None

    def add(self, telemetry: Telemetry) -> None:
        """Take in one event; a warning is logged at once."""
        event = telemetry.event
        with self._lock:
            self._ledger.apply(telemetry)
            if isinstance(event, ScanInfo):
                self._expected = event.frames_expected
            elif isinstance(event, ClassificationInfo):
                self._expected = sum(event.images)
            elif isinstance(event, TaskScores):
                self._task = event
            elif isinstance(event, TrainingStep):
                self._step = event
            elif isinstance(event, PerspectiveScores):
                self._scores = event
        if isinstance(event, WarningRaised):
            log.warning("%s: %s", telemetry.part, event.text)

    @property
    def imaged(self) -> int:
        """Frames imaged so far."""
        with self._lock:
            return self._ledger.counts().inferred

    @property
    def expected(self) -> int | None:
        """Frames in the whole scan, where the source can tell."""
        with self._lock:
            return self._expected

    def describe(self) -> str:
        """Return the figures in one line."""
        with self._lock:
            counts, step, scores, task = self._ledger.counts(), self._step, self._scores, self._task
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
    """A context manager that shows a `RunProgress`; call `refresh` a few times a second, from one thread."""

    def __init__(self, progress: RunProgress, console: Console) -> None:
        self._progress = progress
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
        text = self._progress.describe()
        if self._bar and self._task is not None:
            self._bar.update(
                self._task, completed=self._progress.imaged, total=self._progress.expected, description=text
            )
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
