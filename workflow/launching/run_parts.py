"""Runs the parts of a run beside each other, from their start to the end of the last."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from ptychoflow.streaming.events import Part, PartObserved, PartState
from ptychoflow.streaming.state.run import RunState
from ptychoflow.streaming.telemetry import TelemetrySender
from ptychoflow.workflow.launching.supervision import PartCommand, PartEnd, Supervisor
from ptychoflow.workflow.logs import stderr_console
from ptychoflow.workflow.progress import ProgressDisplay

log = logging.getLogger(__name__)

POLL_S = 0.2
WORKING = (Part.ACQUISITION, Part.TRAINER, Part.EDGE)
"""Parts that end by themselves when the scan has ended, in this order."""
LEAVING_S = 20.0
"""What a trainer has for leaving once the acquisition has left; it needs a second or two."""
STOP_STAGES = (WORKING, (Part.OUTPUTS,), (Part.DASHBOARD,))
"""Those who watch are asked to end when they have seen the others end."""


class RunParts:
    """The parts of one run; none is left when `run` returns.

    Args:
        commands: in the order in which they are started.
        reporter: told what becomes of them.
        state: of the run; how it is doing is shown meanwhile.
        restarts: how often a trainer that was killed is started again.
    """

    def __init__(
        self, commands: Sequence[PartCommand], reporter: TelemetrySender, state: RunState, *, restarts: int
    ) -> None:
        self._commands = {command.part: command for command in commands}
        self._reporter, self._state = reporter, state
        self._restarts = restarts

    def run(self, stop: threading.Event, *, claim: int | None = None, scratch: Path | None = None) -> PartEnd | None:
        """Run the parts to their end, or until `stop` is set; return the one that failed, if any.

        Args:
            stop: ends the parts in order.
            claim: file descriptor that stays open while a part runs, even if this process is killed.
            scratch: folder that is removed at the end, even if this process is killed.
        """
        with (
            Supervisor(claim=claim, scratch=scratch) as supervisor,
            ProgressDisplay(self._state, stderr_console()) as display,
        ):
            for part in self._commands:
                self._start(part, supervisor)
            failure = self._watch(supervisor, display, stop)
            if failure is not None:
                log.warning("ending the parts that still run")
                self._report(failure)
            ends = supervisor.stop(STOP_STAGES)
            if failure is None and not stop.is_set() and (failure := _first_failed(ends)) is not None:
                self._report(failure)
        return failure

    def _report(self, failure: PartEnd) -> None:
        self._reporter.send(PartObserved(failure.part, PartState.FAILED, failure.reason))

    def _start(self, part: Part, supervisor: Supervisor) -> None:
        supervisor.start(self._commands[part])
        self._reporter.send(PartObserved(part, PartState.STARTING))

    def _watch(self, supervisor: Supervisor, display: ProgressDisplay, stop: threading.Event) -> PartEnd | None:
        """Block until the working parts have ended, one of them has failed, or `stop` is set; return what failed.

        A run goes on without its dashboard and its outputs, but has then not ended well. A trainer that was killed is
        started again.
        """
        unwatched: PartEnd | None = None
        acquired_s: float | None = None
        while not stop.is_set() and not supervisor.running.isdisjoint(WORKING):
            for end in supervisor.ended():
                if not end.failed or self._was_done(end, supervisor):
                    log.info("%s is done", end.part)
                elif self._may_start_again(end):
                    self._start(end.part, supervisor)
                elif end.part in WORKING:
                    return end
                else:
                    unwatched = end
            if acquired_s is None and self._has_acquired(supervisor):
                acquired_s = time.monotonic()
            if acquired_s is not None and time.monotonic() - acquired_s > LEAVING_S:
                _let_go_of_trainer(supervisor)
            display.refresh()
            stop.wait(POLL_S)
        return unwatched

    def _was_done(self, end: PartEnd, supervisor: Supervisor) -> bool:
        """Whether the trainer was killed when it had nothing more to do: the acquisition leaves only then."""
        return end.part is Part.TRAINER and end.killed and self._has_acquired(supervisor)

    def _has_acquired(self, supervisor: Supervisor) -> bool:
        """Whether the acquisition has left, as it does when all others have let go of the scan."""
        return Part.ACQUISITION in self._commands and Part.ACQUISITION not in supervisor.running

    def _may_start_again(self, end: PartEnd) -> bool:
        """Whether the trainer goes on from its last checkpoint; torchrun sees to single ones of several ranks."""
        log.warning("%s", end.describe())
        if end.part is not Part.TRAINER or not end.killed or self._restarts == 0:
            return False
        self._restarts -= 1
        return True


def _first_failed(ends: Sequence[PartEnd]) -> PartEnd | None:
    """Return the first part that, asked to end, said that it had failed; not one that was killed for being slow."""
    return next((end for end in ends if end.failed and not end.killed), None)


def _let_go_of_trainer(supervisor: Supervisor) -> None:
    """End a trainer that is still there long after the acquisition has left, if there is one.

    What was killed on its way out is started again, by torchrun or by us, and then waits for a scan that nobody sends.
    """
    for end in supervisor.stop([[Part.TRAINER]]):
        log.info("%s had nothing more to do, and was ended", end.part)
