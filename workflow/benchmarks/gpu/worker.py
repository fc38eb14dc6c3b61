"""The process that sections run in, so that what hangs or crashes there ends no more than itself."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.connection import Connection

from ptychoflow.workflow.benchmarks.gpu.section import Check, Outcome, Setup, Status, carry_out
from ptychoflow.workflow.benchmarks.helper_process import HelperProcess

ENDED_WITHIN_S = 5.0


class Worker:
    """A process that carries out sections; a new one after one that hung, died or found something broken.

    Args:
        setup: where they run.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._process: HelperProcess | None = None

    def carry_out(self, check: Check, within_s: float) -> Outcome:
        """Return what became of a section."""
        if within_s <= 0.0:
            return Outcome(Status.SKIPPED, 0.0, reason="no time is left")
        began_s = time.monotonic()
        process = self._process or self._start()
        outcome: Outcome
        try:
            self._connection.send(check)
            if self._connection.poll(within_s):
                outcome = self._connection.recv()
            else:
                outcome = Outcome(Status.FAIL, within_s, reason=f"not done within {within_s:.3g} s")
                process.kill()
        except (EOFError, OSError):
            took_s = round(time.monotonic() - began_s, 3)
            outcome = Outcome(Status.FAIL, took_s, reason="its process died; what it said is above")
        if outcome.status is Status.FAIL:
            self.end()  # an error may leave the device unusable for the process that had it
        return outcome

    def end(self) -> None:
        """End the process, if there is one."""
        if self._process is None:
            return
        self._connection.close()
        self._process.join(ENDED_WITHIN_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process = None

    def _start(self) -> HelperProcess:
        self._connection, theirs = multiprocessing.Pipe()
        self._process = HelperProcess(_work, theirs, self._setup, daemon=False)
        self._process.start()
        theirs.close()
        return self._process


def _work(connection: Connection, setup: Setup) -> None:
    """Carry out the sections that are asked for, until the other end is closed."""
    while True:
        try:
            check = connection.recv()
        except EOFError:
            return
        connection.send(carry_out(check, setup))
