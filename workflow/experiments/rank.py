"""One rank of an experiment: a process that torchrun starts, and starts again if one of the ranks is killed.

Usage: python -m ptychoflow.workflow.experiments.rank PIPELINE FOLDER CASE...
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ptychoflow.streaming.durable_file import write_durably
from ptychoflow.streaming.errors import UserError
from ptychoflow.trainer.device import Rank, join_ranks
from ptychoflow.workflow.configuration.pipeline_name import PipelineName
from ptychoflow.workflow.exit_status import USER_ERROR_STATUS
from ptychoflow.workflow.experiments.case import Case, CaseFolder
from ptychoflow.workflow.experiments.runner import FAILURE
from ptychoflow.workflow.launching.torchrun import die_with_parent
from ptychoflow.workflow.logs import configure_logging, report_bug

log = logging.getLogger(__name__)

Train = Callable[[Any, CaseFolder, Rank], dict[str, Any]]
"""Trains a case of a pipeline, from the newest checkpoint in its folder if there is one; returns plain JSON values."""


def training_of(pipeline: PipelineName) -> tuple[type[Case], Train]:
    """Return how a pipeline's cases are read and trained; each brings the libraries of its networks."""
    if pipeline is PipelineName.CLASSIFICATION:
        from ptychoflow.workflow.experiments.classification import case, training  # noqa: PLC0415

        return case.ClassificationCase, training.train
    from ptychoflow.workflow.experiments.ptychography import case as scan_case  # noqa: PLC0415
    from ptychoflow.workflow.experiments.ptychography import training as scan_training  # noqa: PLC0415

    return scan_case.PtychographyCase, scan_training.train


def train_cases(pipeline: PipelineName, folders: Sequence[CaseFolder]) -> None:
    """Train the cases in these folders that are not done, one after the other; the same on every rank. Blocks.

    Raises:
        UserError: what is trained on, sizes or a model that cannot be used, or a damaged checkpoint.
    """
    waiting = [folder for folder in folders if folder.figures() is None]
    if not waiting:
        return
    kind, train = training_of(pipeline)
    with join_ranks(waiting[0].case(kind).learning) as rank:
        for folder in waiting:
            case = folder.case(kind)
            log.info("%s: %s", case.name, case.parameters())
            figures = train(case, folder, rank)
            if rank.rank == 0:
                folder.finish(figures)


def main() -> int:
    """Train the cases that the command line names; return the exit status."""
    die_with_parent(os.getppid())
    sys.excepthook = report_bug
    configure_logging()
    pipeline, folder, *names = sys.argv[1:]
    try:
        train_cases(PipelineName(pipeline), [CaseFolder(Path(folder) / name) for name in names])
    except UserError as error:
        log.error("%s", error)
        write_durably(Path(folder) / FAILURE.format(os.environ["RANK"]), str(error))
        return USER_ERROR_STATUS
    return 0


if __name__ == "__main__":
    sys.exit(main())
