"""Ground truth beside the acquisition: one worker process that does one perspective after the other."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from ptychoflow.acquisition.retrieval.engines import check_installed
from ptychoflow.acquisition.retrieval.ground_truth import GroundTruth, GroundTruthJob
from ptychoflow.acquisition.retrieval.preview import Preview
from ptychoflow.acquisition.retrieval.settings import RetrievalSettings
from ptychoflow.acquisition.retrieval.stored_frames import StoredFrames
from ptychoflow.acquisition.retrieval.worker_messages import (
    AnswerMessage,
    DoneMessage,
    FailedMessage,
    JobMessage,
    PreviewedMessage,
    add_start,
    read_ground_truth,
    read_preview,
    write_job,
)
from ptychoflow.acquisition.scan import ObjectImage
from ptychoflow.streaming.child import Child, ChildEnded
from ptychoflow.streaming.device import gpu_to_see
from ptychoflow.streaming.errors import UserError

log = logging.getLogger(__name__)

WORKER_MODULE = "ptychoflow.acquisition.retrieval.worker_process"
PREVIEW = "preview"
"""Folder of the preview under way."""
STARTS_WITHIN_S = 5.0
"""How long a job waits for what it may start from, while nothing else is to be done."""
ATTEMPTS = 2
"""How often a job is given to a worker that does not survive it: what killed one (another process's memory, say) may
be over by now, and a job that kills every worker must not be tried for ever."""


@dataclass(frozen=True)
class GroundTruthResult:
    """The answer to one job: ground truth, or the reason why there is none."""

    perspective: int
    ground_truth: GroundTruth | None
    error: str | None
    worker_lost: bool = False
    """The job did not fail by itself: the workers that were at it were killed. It may succeed at another time."""


class GroundTruthWorker:
    """Computes ground truth in a process of its own. Use it from one thread.

    Results come in the order of the jobs. A worker that is gone is started again: it tries the job that the former one
    was at once more, and goes on with those behind it if that one does not survive it either. The worker ends with this
    object, and when this process is killed. Arrays pass through files in a folder of this object's own in `spool_dir`,
    which is removed at the end.

    Args:
        settings: how ground truth is found.
        spool_dir: made if need be.
        warn: told when a worker was lost; only the log is by default.

    Raises:
        UserError: the library that `settings.source` needs is not installed, or there is no such GPU.
    """

    def __init__(
        self, settings: RetrievalSettings, *, spool_dir: Path, warn: Callable[[str], None] = log.warning
    ) -> None:
        check_installed(settings.source)
        spool_dir.mkdir(parents=True, exist_ok=True)
        self._settings = settings
        self._environment = gpu_to_see(settings.device, settings.gpu, setting="retrieval.gpu")
        self._spool_dir = Path(tempfile.mkdtemp(dir=spool_dir))
        self._waiting: deque[JobMessage] = deque()
        self._jobs = 0
        self._warn = warn
        self._lost = 0
        """Workers that did not survive the first job that waits."""
        self._previewing = False
        self._begun = False
        """The worker is at the first job that waits."""
        self._begin_at_s = 0.0
        self._starts_come = False
        self._child = self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pending(self) -> list[int]:
        """Perspectives whose result has not been polled; the worker is at the first of them."""
        return [message.perspective for message in self._waiting]

    @property
    def idle(self) -> bool:
        """Whether it has nothing to do, and so could make a preview."""
        return not self._waiting and not self._previewing

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        return self._child.pid

    def folder_of_job(self) -> Path:
        """Make a folder for a job whose frames are written as they come: it is removed when the job is done with.

        Raises:
            OSError: the disk does not take it.
        """
        folder = self._spool_dir / str(self._jobs)
        folder.mkdir()
        self._jobs += 1
        return folder

    def submit(self, job: GroundTruthJob) -> None:
        """Hand over a job and return as soon as its arrays are written: to the folder where its frames are, if any.

        Raises:
            OSError: the disk does not take the arrays; the job can be submitted again.
        """
        folder = job.frames.path.parent if isinstance(job.frames, StoredFrames) else self.folder_of_job()
        message = write_job(job, folder)
        self._waiting.append(message)
        self._begin_at_s = time.monotonic() + (STARTS_WITHIN_S if self._starts_come else 0.0)
        self._begin_next()

    def offer_start(self, perspective: int, start: ObjectImage) -> None:
        """Have the job of a perspective start from this object, unless it has begun.

        Once one has been offered, a worker with nothing else to do waits for those to come, for seconds.

        Raises:
            OSError: the disk does not take it; the job starts from nothing.
        """
        self._starts_come = True
        for place, message in enumerate(self._waiting):
            if message.perspective == perspective and message.start_origin_px is None and (place or not self._begun):
                self._waiting[place] = add_start(message, start)
        self._begin_next()

    def preview(self, job: GroundTruthJob) -> None:
        """Have a preview made of what there is of a perspective; a job that is submitted meanwhile interrupts it.

        Raises:
            OSError: the disk does not take the job's arrays, and there is no preview.
            ValueError: it is not idle.
        """
        if not self.idle:
            raise ValueError("the worker is not idle")
        message = write_job(job, self._spool_dir / PREVIEW, preview=True)
        self._previewing = True
        self._child.send(msgspec.json.encode(message))

    def withdraw(self, perspective: int) -> None:
        """Forget a job that the worker is not at yet; it gives no result.

        Raises:
            ValueError: no such job waits.
        """
        behind = list(self._waiting)[1:]
        message = next((one for one in behind if one.perspective == perspective), None)
        if message is None:
            raise ValueError(f"no job of perspective {perspective} waits")
        self._waiting.remove(message)
        shutil.rmtree(message.directory, ignore_errors=True)

    def poll(self, timeout_s: float = 0.0) -> GroundTruthResult | Preview | None:
        """Return the next result or preview; None when none came within `timeout_s`, or nothing is under way."""
        if self.idle:
            return None
        self._begin_next()
        try:
            line = self._child.receive(timeout_s)
        except ChildEnded as end:
            return self._replace_worker(end)
        if line is None:
            return None
        answer = msgspec.json.decode(line, type=AnswerMessage)
        if isinstance(answer, PreviewedMessage):
            self._previewing = False
            try:
                return read_preview(answer, self._spool_dir / PREVIEW)
            except (UserError, OSError) as error:
                log.warning("a preview is left out: %s", error)
                return None
        return self._finish(answer)

    def close(self) -> None:
        """End the worker, in the middle of a job if need be, and drop what was not polled."""
        self._child.close()
        self._waiting.clear()
        shutil.rmtree(self._spool_dir, ignore_errors=True)

    def _start(self) -> Child:
        arguments = [self._settings.model_dump_json(), str(self._spool_dir)]
        return Child(WORKER_MODULE, arguments, threads=self._settings.threads, environment=self._environment)

    def _replace_worker(self, end: ChildEnded) -> GroundTruthResult | None:
        """Start another worker, which tries the job once more; return its result if it was tried often enough."""
        self._child.close()
        self._child = self._start()
        at_a_job, self._begun = self._begun and not self._previewing, False
        if not at_a_job:
            self._previewing = False
            log.warning("the ground-truth worker is gone (%s); it was at no more than a preview", end)
            self._begin_next()
            return None
        self._lost += 1
        perspective = self._waiting[0].perspective
        if self._lost < ATTEMPTS:
            self._warn(f"the ground-truth worker is gone ({end}); perspective {perspective} is tried once more")
            self._begin_next()
            return None
        reason = f"the ground-truth worker is gone, {self._lost} times at this perspective: {end}"
        return self._finish(FailedMessage(perspective, reason), worker_lost=True)

    def _begin_next(self) -> None:
        """Send the worker its next job; those behind it stay here, where they can be withdrawn.

        The last one that waits may still get something to start from.
        """
        if self._begun or not self._waiting:
            return
        first, last = self._waiting[0], len(self._waiting) == 1
        if last and first.start_origin_px is None and time.monotonic() < self._begin_at_s:
            return
        self._child.send(msgspec.json.encode(first))
        self._begun = True

    def _finish(self, answer: DoneMessage | FailedMessage, *, worker_lost: bool = False) -> GroundTruthResult:
        directory = Path(self._waiting.popleft().directory)
        self._begun = False
        truth, reason = None, None
        if isinstance(answer, FailedMessage):
            reason = answer.reason
        else:
            try:
                truth = read_ground_truth(answer, directory)
            except (UserError, OSError) as error:
                # a resumed run tries it again
                reason, worker_lost = str(error), True
        shutil.rmtree(directory, ignore_errors=True)
        self._lost = 0
        self._begin_next()
        return GroundTruthResult(answer.perspective, truth, reason, worker_lost)
