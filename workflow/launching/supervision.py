"""Starts the parts as child processes, notices how each one ends, and ends them in order."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from ptychoflow.streaming.events import Part
from ptychoflow.streaming.signal_name import signal_name
from ptychoflow.workflow.contained import ADVICE, CRASHES
from ptychoflow.workflow.launching.lifeline import Lifeline
from ptychoflow.workflow.launching.processes import GRACE_S, terminate_in_order
from ptychoflow.workflow.launching.watchdog import Watchdog
from ptychoflow.workflow.logs import last_words


@dataclass(frozen=True)
class PartCommand:
    """How to start one part."""

    part: Part
    arguments: Sequence[str]
    log: Path
    """Receives the part's standard output and standard error."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables added to those of the launcher."""


@dataclass(frozen=True)
class PartEnd:
    """How a part ended."""

    part: Part
    status: int
    """Exit status; -N after signal N, as in `subprocess`."""
    last_words: str
    log: Path

    @property
    def failed(self) -> bool:
        """Whether the part ended otherwise than with status 0."""
        return self.status != 0

    @property
    def killed(self) -> bool:
        """Whether a signal ended the part, not its own decision."""
        return self.status < 0

    @property
    def reason(self) -> str:
        """The part's last words, or else how it ended."""
        if -self.status in CRASHES:  # what it said last has nothing to do with that
            return f"{_cause(self.status)}{self._about_the_scan}"
        return self.last_words or _cause(self.status)

    def describe(self) -> str:
        """Say in one line which part ended, how, with what last words, and where its log is."""
        words = f": {self.last_words}" if self.last_words else ""
        if -self.status in CRASHES:
            words = self._about_the_scan
        return f"{self.part} failed ({_cause(self.status)}){words}; its log is {self.log}"

    @property
    def _about_the_scan(self) -> str:
        return f": a library crashed while it read the scan; {ADVICE}" if self.part is Part.ACQUISITION else ""


class Supervisor:
    """The parts of one run as child processes, each in its own session. Not thread-safe.

    A context manager: leaving it ends whatever still runs. So does a watchdog, should this process be killed; and
    should both be, the parts of a run notice it and end by themselves.

    Args:
        grace_s: parts that have not ended this long after they were asked to are killed.
        claim: file descriptor that the watchdog and every part keep open.
        scratch: folder that is removed at the end, even if this process is killed.
    """

    def __init__(self, *, grace_s: float = GRACE_S, claim: int | None = None, scratch: Path | None = None) -> None:
        self._grace_s = grace_s
        self._claim = () if claim is None else (claim,)
        self._lifeline = Lifeline()
        self._watchdog = Watchdog(grace_s=grace_s, held=(self._lifeline.write_end, *self._claim), scratch=scratch)
        self._running: dict[Part, tuple[subprocess.Popen[bytes], PartCommand]] = {}

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop([list(self._running)])
        self._watchdog.close()
        self._lifeline.close()

    @property
    def running(self) -> frozenset[Part]:
        """Parts that were started and not yet seen to end."""
        return frozenset(self._running)

    def start(self, command: PartCommand) -> None:
        """Start one part with its output appended to its log."""
        with command.log.open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 our own command line
                list(command.arguments),
                stdin=self._lifeline.read_end,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._lifeline.environment, **command.environment},
                start_new_session=True,
                pass_fds=self._claim,
            )
        self._watchdog.watch(process.pid)
        self._running[command.part] = (process, command)

    def ended(self) -> list[PartEnd]:
        """Return the parts that ended since the last call. Does not block."""
        return [self._forget(part) for part, (process, _) in list(self._running.items()) if process.poll() is not None]

    def stop(self, stages: Sequence[Sequence[Part]]) -> list[PartEnd]:
        """End the parts that still run, those of a stage at once, and kill what is left after the grace time.

        Blocks for at most about the grace time; returns how each one ended.
        """
        running = [[part for part in stage if part in self._running] for stage in stages]
        terminate_in_order(
            [[psutil.Process(self._running[part][0].pid) for part in stage] for stage in running],
            grace_s=self._grace_s,
        )
        return [self._forget(part) for stage in running for part in stage]

    def _forget(self, part: Part) -> PartEnd:
        process, command = self._running.pop(part)
        return PartEnd(part, process.wait(), last_words(command.log), command.log)


def _cause(status: int) -> str:
    return f"ended by signal {signal_name(-status)}" if status < 0 else f"exit status {status}"
