"""How a run is doing, in one line and as a bar."""

from __future__ import annotations

import logging

from rich.console import Console

from ptychoflow.streaming.events import Part, PartState, ScanInfo, Telemetry, WarningRaised
from ptychoflow.streaming.printable import printable
from ptychoflow.streaming.state.run import RunState
from ptychoflow.workflow.progress_bar import ProgressBar

log = logging.getLogger(__name__)

ASKING = ("--set ", "ptychoflow inspect")
"""A note with one of these asks for a decision."""


def log_for_people(telemetry: Telemetry) -> None:
    """Log what people should know before a run has gone on for hours: warnings, and the notes on its scan."""
    match telemetry.event:
        case WarningRaised(text):
            log.warning("%s: %s", telemetry.part, text)
        case ScanInfo(notes=notes):
            for note in notes:
                asked = any(words in note for words in ASKING)
                log.log(logging.WARNING if asked else logging.INFO, "scan: %s", note)


def describe(state: RunState) -> str:
    """Return how a run is doing in one line."""
    with state.lock:
        counts, step, task = state.ledger.counts(), state.training.newest, state.tasks.newest
        scores = state.perspectives.newest
        acquisition = next((health for health in state.parts.all() if health.part is Part.ACQUISITION), None)
    texts = [f"acquired {counts.acquired}", f"imaged {counts.inferred}", f"trained on {counts.trained}"]
    # nothing moves: without a word, a detector that is off looks like a run that hangs
    if not counts.acquired and acquisition is not None and acquisition.state is PartState.RUNNING and acquisition.text:
        texts.append(printable(acquisition.text))
    if step is None and counts.acquired:
        texts.append("waiting for the first ground truth")
    if step is not None:
        texts += [f"step {step.step}", f"loss {step.loss:.3f}", _rate(step.samples_per_s)]
    if scores is not None:
        quality, constant = scores.quality.psnr_db.phase, scores.constant.psnr_db.phase
        texts.append(f"phase PSNR {quality:.1f} dB (constant {constant:.1f})")
    if task is not None:
        texts.append(f"task {task.task}: top-1 {task.top1:.2f}, top-5 {task.top5:.2f}")
    return ", ".join(texts)


def _rate(samples_per_s: float) -> str:
    """Return a rate; below one in two seconds by its period, as it would come to 0."""
    if 0 < samples_per_s < 0.5:
        return f"a sample in {1 / samples_per_s:.0f} s"
    return f"{samples_per_s:.{0 if samples_per_s >= 10 else 1}f} samples/s"


class ProgressDisplay(ProgressBar):
    """Shows how a run is doing; call `refresh` a few times a second."""

    def __init__(self, state: RunState, console: Console) -> None:
        super().__init__(console)
        self._state = state

    def __exit__(self, *details: object) -> None:
        """Leave the last state on the terminal."""
        self.refresh()
        super().__exit__(*details)

    def refresh(self) -> None:
        """Show the newest figures."""
        with self._state.lock:
            imaged, expected = self._state.ledger.counts().inferred, self._state.frames_expected
        self.show(describe(self._state), imaged, expected)
