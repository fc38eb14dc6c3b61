"""The ground-truth worker's own process: reads jobs from standard input, answers on standard output.

It ends as soon as standard input is closed, so also when its parent is killed, in the middle of a job if need be.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec

from ptychoflow.acquisition.retrieval.engine import FAILURES, Interrupted
from ptychoflow.acquisition.retrieval.engines import RETRIEVING, make_engine
from ptychoflow.acquisition.retrieval.ground_truth import GroundTruth, compute_ground_truth
from ptychoflow.acquisition.retrieval.preview import Previewer
from ptychoflow.acquisition.retrieval.settings import RetrievalSettings
from ptychoflow.acquisition.retrieval.worker_messages import (
    AnswerMessage,
    DoneMessage,
    FailedMessage,
    JobMessage,
    PreviewedMessage,
    read_job,
    write_ground_truth,
    write_preview,
)
from ptychoflow.streaming.child_process import begin_child, requests_of_parent
from ptychoflow.streaming.errors import DISK_FULL, UserError
from ptychoflow.streaming.freed_memory import keep_freed_memory

log = logging.getLogger(__name__)

FULL_RETRY_S = 0.5


def main() -> None:
    """Do jobs until standard input is closed. Arguments: the settings as JSON, the folder of the jobs' arrays."""
    answers = begin_child()
    keep_freed_memory()
    warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\.")
    settings = RetrievalSettings.model_validate_json(sys.argv[1])
    previewer = Previewer(settings)
    jobs = requests_of_parent(at_end=lambda: shutil.rmtree(sys.argv[2], ignore_errors=True))
    if settings.source in RETRIEVING:
        # The engine's libraries load while the first frames are taken; what is missing is said with the first job.
        with contextlib.suppress(UserError):
            make_engine(settings)
    from_nothing: float | None = None
    while True:
        message = msgspec.json.decode(jobs.get(), type=JobMessage)
        answer: AnswerMessage
        if message.preview:
            answer = _preview(message, previewer, interrupted=lambda: not jobs.empty())
        else:
            # how good is good enough is only known from a retrieval from nothing
            enough_loss = None if message.start_origin_px is None else from_nothing
            answer = _do(message, settings, enough_loss=enough_loss)
            if isinstance(answer, DoneMessage) and enough_loss is None:
                from_nothing = answer.loss
        answers.write(msgspec.json.encode(answer) + b"\n")
        answers.flush()


def _do(message: JobMessage, settings: RetrievalSettings, *, enough_loss: float | None) -> AnswerMessage:
    """Do a job: from what it brings until the loss is `enough_loss`, or from nothing where that is None."""
    try:
        job = read_job(message)
        if enough_loss is None:
            job = replace(job, start=None)
        truth = compute_ground_truth(job, settings, enough_loss=enough_loss)
        return write_when_there_is_room(truth, message.perspective, Path(message.directory))
    except UserError as error:
        return FailedMessage(message.perspective, str(error))
    except FAILURES as error:
        log.exception("perspective %d", message.perspective)
        _end_where_the_gpu_is_lost()
        return FailedMessage(message.perspective, f"{type(error).__name__}: {error}")


def write_when_there_is_room(truth: GroundTruth, perspective: int, directory: Path) -> DoneMessage:
    """Write ground truth as `write_ground_truth`; while the disk is full, wait: it was dear to compute.

    Raises:
        OSError: the disk does not take it for another reason.
    """
    waits = False
    while True:
        try:
            return write_ground_truth(truth, perspective, directory)
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            if not waits:
                log.warning("the ground truth of perspective %d waits for room on the disk: %s", perspective, error)
            waits = True
            time.sleep(FULL_RETRY_S)


def _preview(message: JobMessage, previewer: Previewer, *, interrupted: Callable[[], bool]) -> PreviewedMessage:
    """Make a preview unless that is impossible, or a job that is not one has come."""
    try:
        return write_preview(previewer.make(read_job(message), interrupted=interrupted), Path(message.directory))
    except Interrupted:
        return PreviewedMessage(message.perspective)
    except (UserError, *FAILURES) as error:
        log.info("no preview of perspective %d: %s", message.perspective, error)
        _end_where_the_gpu_is_lost()
        return PreviewedMessage(message.perspective)


def _end_where_the_gpu_is_lost() -> None:
    """End this process if an error has left its GPU unusable for it: the parent starts another."""
    import torch  # noqa: PLC0415  it loads while the first frames are taken

    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        sys.exit(f"this process cannot use its GPU any more: {error}")


if __name__ == "__main__":
    main()
