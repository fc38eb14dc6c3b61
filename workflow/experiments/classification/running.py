"""Runs cases on their ranks: processes of its own, or those that torchrun has started."""

from __future__ import annotations

import logging
import multiprocessing
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from ptychoflow.streaming.errors import UserError
from ptychoflow.trainer.device import Rank, join_ranks
from ptychoflow.trainer.pipelines.classification.offline.data import ImageData
from ptychoflow.trainer.pipelines.classification.offline.training import TaskTrainer
from ptychoflow.trainer.training.section_checkpoints import SectionCheckpoints
from ptychoflow.workflow.experiments.classification.cases import PLAIN, Case
from ptychoflow.workflow.experiments.classification.figures import figures
from ptychoflow.workflow.experiments.classification.plain import train_plainly
from ptychoflow.workflow.experiments.classification.settings import ClassificationExperiment
from ptychoflow.workflow.experiments.methods import Method
from ptychoflow.workflow.logs import configure_logging
from ptychoflow.workflow.parent_death import die_with_parent

log = logging.getLogger(__name__)

END_S = 20.0
"""How long ranks that have told all results may take to end."""

OnResult = Callable[[Case, dict[str, Any]], None]
"""Is given every case with its figures, plain JSON values, as soon as it is done."""


class RankKilled(Exception):
    """A process was killed before its work was done; says which and how."""


@dataclass(frozen=True)
class Work:
    """What every rank is told."""

    config: ClassificationExperiment
    cases: Sequence[Case]
    checkpoints: Path | None


def run_cases(
    config: ClassificationExperiment, cases: Sequence[Case], on_result: OnResult, *, checkpoints: Path | None
) -> None:
    """Run all cases; blocks. Those with the same number of ranks share their processes.

    Under torchrun every process calls this; rank 0 alone tells the results. Otherwise the ranks are started again if
    one of them is killed; torchrun does so itself.

    Args:
        config: what is trained, and how often ranks are started again.
        cases: in this order.
        on_result: called in this process.
        checkpoints: holds a folder for each case, from which it goes on; None writes none. The plain form has none.

    Raises:
        UserError: data, buffer sizes or a model that cannot be used; a rank that died too often; cases for other
            numbers of ranks than torchrun's.
    """
    if "RANK" in os.environ:
        die_with_parent(os.getppid())
        _check_world_size(cases)
        _run_in_rank(Work(config, cases, checkpoints), on_result)
        return
    for ranks in dict.fromkeys(_processes(case) for case in cases):
        alike = [case for case in cases if _processes(case) == ranks]
        _run_persistently(Work(config, alike, checkpoints), on_result, ranks=ranks)


def was_restarted() -> bool:
    """Whether torchrun has started this process in the place of one that was killed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def _processes(case: Case) -> int:
    return 1 if case.part == PLAIN else case.ranks


def _check_world_size(cases: Sequence[Case]) -> None:
    world_size = int(os.environ["WORLD_SIZE"])
    if any(_processes(case) != world_size for case in cases):
        raise UserError(
            f"torchrun has started {world_size} ranks, but the experiment asks for other numbers too; set "
            f"experiment.ranks={world_size} and leave out experiment.rank_counts and experiment.plain, or run without"
        )


def _run_in_rank(work: Work, on_result: OnResult) -> None:
    data = ImageData(work.config.images)
    with join_ranks(work.config.training) as rank:
        for case in work.cases:
            found = _run(work, case, data, rank)
            if rank.rank == 0:
                on_result(case, found)


def _run(work: Work, case: Case, data: ImageData, rank: Rank) -> dict[str, Any]:
    log.info("%s: %s, %s", case.part, case.method, case.parameters())
    settings = case.training(work.config.training, training_set=len(data.files.train))
    images = case.images(work.config.images)
    if case.part == PLAIN:
        return figures(train_plainly(settings, images, data, rank=rank, seed=case.seed, ranks=case.ranks))
    checkpoints = None
    if work.checkpoints is not None:
        every = work.config.experiment.checkpoint_epochs
        checkpoints = SectionCheckpoints(work.checkpoints / case.name, rank, every)
    scratch = case.method is Method.FROM_SCRATCH
    trainer = TaskTrainer(
        settings, images, data, rank=rank, seed=case.seed, from_scratch=scratch, checkpoints=checkpoints
    )
    return figures(trainer.run())


def _run_persistently(work: Work, on_result: OnResult, *, ranks: int) -> None:
    """Start the ranks, again if one of them is killed, until all cases are done."""
    remaining, restarts = list(work.cases), 0
    while remaining:
        try:
            _run_in_processes(replace(work, cases=tuple(remaining)), remaining, on_result, ranks=ranks)
        except RankKilled as error:
            if work.checkpoints is None:
                raise UserError(f"{error}; with --json FILE it would go on from a checkpoint") from None
            if restarts == work.config.experiment.max_restarts:
                raise UserError(f"{error}; --resume goes on from the last checkpoint") from None
            restarts += 1
            log.warning("%s; starting the ranks again, from the last checkpoint", error)


def _run_in_processes(work: Work, remaining: list[Case], on_result: OnResult, *, ranks: int) -> None:
    """Run cases and remove what is done from `remaining`; raise RankKilled if a rank is killed before all are."""
    context = multiprocessing.get_context("spawn")
    results, sink = context.Pipe(duplex=False)
    port = _free_port()
    processes = [
        context.Process(target=_serve_rank, args=(work, sink, _environment(rank, ranks, port), os.getpid()))
        for rank in range(ranks)
    ]
    try:
        for process in processes:
            process.start()
        sink.close()
        while remaining:
            wait([results, *(process.sentinel for process in processes if process.is_alive())])
            ended = _ended_early(processes)
            _take_results(results, remaining, on_result)
            if ended is not None and remaining:
                raise _death(ended, processes[ended].exitcode or 0)
        for process in processes:
            process.join(END_S)
    finally:
        for process in processes:
            process.terminate()
            process.join()
        results.close()


def _ended_early(processes: Sequence[SpawnProcess]) -> int | None:
    """Return the rank that has failed, one that was killed first; rank 0 must not even end well."""
    ended = {
        process.exitcode: rank
        for rank, process in enumerate(processes)
        if process.exitcode is not None and (process.exitcode != 0 or rank == 0)
    }
    return ended[min(ended)] if ended else None


def _death(rank: int, status: int) -> Exception:
    text = f"rank {rank} of the experiment died with status {status}"
    return RankKilled(text) if status < 0 else UserError(f"{text}; the reason is above")


def _take_results(results: Connection, remaining: list[Case], on_result: OnResult) -> None:
    while remaining and results.poll():
        try:
            kind, content = results.recv()
        except EOFError:  # all ranks have ended
            return
        if kind == "error":
            raise UserError(content)
        on_result(remaining.pop(0), content)


def _environment(rank: int, ranks: int, port: int) -> dict[str, str]:
    """Return what torchrun would set; a rank alone joins nobody."""
    if ranks == 1:
        return {}
    return {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(ranks),
    }


def _serve_rank(work: Work, sink: Connection, environment: dict[str, str], parent_pid: int) -> None:
    die_with_parent(parent_pid)
    configure_logging()
    os.environ |= environment
    try:
        _run_in_rank(work, lambda case, found: sink.send(("result", found)))
    except UserError as error:
        sink.send(("error", str(error)))
        raise SystemExit(1) from None


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
