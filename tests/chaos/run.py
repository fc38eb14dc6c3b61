"""One run by the command, from its start to its end by whatever means, and how far it has come."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import psutil
from victims import MARK, processes_of

POLL_S = 0.02
PERSPECTIVES, FRAMES_EACH = 3, 30
FRAMES = PERSPECTIVES * FRAMES_EACH
PATCH_PX = 16
SETTINGS: Mapping[str, Any] = {
    "source.kind": "simulation",
    "source.perspectives": PERSPECTIVES,
    "source.frames_per_perspective": FRAMES_EACH,
    "source.frame_shape_px": [32, 32],
    "source.seed": 5,
    "acquisition.rate_hz": 30.0,
    "acquisition.batch_frames": 4,
    "retrieval.source": "simulated",
    "retrieval.target_shape_px": [PATCH_PX, PATCH_PX],
    "trainer.batch_size": 4,
    "trainer.pace": "stream",
    "trainer.finish_s": 0.2,
    "trainer.publish_every_s": 0.5,
    "trainer.wait_until_served_s": 30.0,
    "trainer.model.width": 4,
    "trainer.buffer.capacity": 100,
    "trainer.buffer.representatives": 4,
    "trainer.buffer.candidates": 4,
    "trainer.checkpoint.every_s": 0.5,
    "edge.backend": "eager",
    "edge.refresh_share": 0.1,
    "edge.wait_for_trainer_s": 60.0,
}
STALLED_S = 150.0
"""Longer than the parts wait for each other by these settings, on a busy host."""
LONGEST_S = 900.0


class Moment(StrEnum):
    """How far a run has come, in order; each is known by what the run has written."""

    BEGUN = "begun"
    STARTED = "parts started"
    SCANNING = "scanning"
    LEARNING = "learning"
    SCANNED = "scan over"
    LEARNT = "final weights"
    TRAINED = "trainer done"
    ACQUIRED = "acquisition done"
    IMAGED = "edge done"


TOLD = {
    Moment.SCANNING: b'"type":"frame_taken"',
    Moment.LEARNING: b'"type":"weights_published"',
    Moment.SCANNED: b"the scan is over",
    Moment.LEARNT: b'"final":true',
}
LOGGED = {
    Moment.STARTED: b" in /",
    Moment.TRAINED: b"trainer is done",
    Moment.ACQUIRED: b"acquisition is done",
    Moment.IMAGED: b"edge is done",
}


class Growing:
    """What is appended to a file from now on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = path.stat().st_size if path.exists() else 0
        self.content = b""

    def read(self) -> bytes:
        """Return all that was appended."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._at + len(self.content))
                self.content += file.read()
        return self.content


class Run:
    """A run in one folder; `start` begins it, or goes on with it.

    Args:
        folder: of the run.
        settings: beside `SETTINGS`.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder, self._settings = folder, {**SETTINGS, "run.directory": str(folder.parent), **settings}
        self.mark = uuid.uuid4().hex

    def start(self, *, ranks: int | None = None) -> None:
        """Begin the run, or go on with one that was begun, on another number of ranks if one is given."""
        resumes = (self.folder / "config.toml").exists()
        other_ranks = [] if ranks is None else [f"--ranks={ranks}"]
        assignments = [f"--set={key}={json.dumps(value)}" for key, value in self._settings.items()]
        command = (
            ["resume", str(self.folder), *other_ranks] if resumes else ["run", "--name", self.folder.name, *assignments]
        )
        self._told = Growing(self.folder / "telemetry.jsonl")
        self._logged = Growing(self.folder / "logs" / "launcher.log")
        self._said = self.folder.parent / f"{self.folder.name}.said"
        self._reached = {Moment.BEGUN}
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ptychoflow", *command],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env={**os.environ, MARK: self.mark},
                start_new_session=True,
                preexec_fn=_hear_signals,  # noqa: PLW1509 there are no threads
            )

    @property
    def launcher(self) -> psutil.Process:
        """The process of the command; it must not have ended."""
        return psutil.Process(self._process.pid)

    @property
    def said(self) -> str:
        """What the command has printed since its last start."""
        return self._said.read_text(errors="replace")

    @property
    def status(self) -> int | None:
        """The command's exit status, -N after signal N; None while it runs."""
        return self._process.poll()

    def has_reached(self, moment: Moment) -> bool:
        """Whether the run has come so far since its last start."""
        if moment not in self._reached:
            file, sign = (self._told, TOLD[moment]) if moment in TOLD else (self._logged, LOGGED[moment])
            if sign in file.read():
                self._reached.add(moment)
        return moment in self._reached

    def wait_for(self, moment: Moment, delay_s: float) -> bool:
        """Wait until so long after a moment; return whether the run is still there then, and has not stalled."""
        progress = Progress(self)
        while self.status is None and not self.has_reached(moment):
            if progress.stalled:
                return False
            time.sleep(POLL_S)
        deadline_s = time.monotonic() + delay_s
        while self.status is None and time.monotonic() < deadline_s:
            time.sleep(min(POLL_S, max(0.0, deadline_s - time.monotonic())))
        return self.status is None

    def wait_until_ended(self) -> bool:
        """Wait for the command's end; return whether it came."""
        progress = Progress(self)
        while self.status is None and not progress.stalled:
            time.sleep(POLL_S)
        return self.status is not None

    def wait_until_gone(self, patience_s: float) -> list[psutil.Process]:
        """Wait until no process of the run is left; return those that are after so long."""
        deadline_s = time.monotonic() + patience_s
        while (left := processes_of(self.mark)) and time.monotonic() < deadline_s:
            time.sleep(0.2)
        return left

    def tell_where_it_hangs(self) -> None:
        """Have every process write to its log where it is, and end by that."""
        self._send_to_all(signal.SIGABRT)
        self.wait_until_gone(5.0)

    def kill(self) -> None:
        """Leave nothing of it."""
        self._send_to_all(signal.SIGKILL)
        self._process.wait()

    def _send_to_all(self, number: signal.Signals) -> None:
        for process in processes_of(self.mark):
            try:
                process.send_signal(signal.SIGCONT)
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue

    def progress(self) -> tuple[Any, ...]:
        """Return what changes while the run gets on."""
        told = self._told.read()
        kinds = (b'"acquired":', b'"inferred":', b'"trained":')
        counts = [told[at : at + 80].split(b",")[0] for kind in kinds if (at := told.rfind(kind)) >= 0]
        return (*counts, *(self.has_reached(moment) for moment in Moment), told.count(b'"type":"part_'))


class Progress:
    """Whether a run still gets on."""

    def __init__(self, run: Run) -> None:
        self._run, self._seen = run, run.progress()
        self._began_s = self._changed_s = time.monotonic()
        self._due_s = 0.0

    @property
    def stalled(self) -> bool:
        """Whether nothing has changed for too long."""
        now_s = time.monotonic()
        if now_s >= self._due_s:
            self._due_s = now_s + 1.0
            if (seen := self._run.progress()) != self._seen:
                self._seen, self._changed_s = seen, now_s
        return now_s - self._changed_s > STALLED_S or now_s - self._began_s > LONGEST_S


def _hear_signals() -> None:
    """Undo what `nohup` or a shell in the background may have set for a campaign, and a user in front has not."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
