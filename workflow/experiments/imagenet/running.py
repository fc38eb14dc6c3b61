"""Runs cases on their ranks: processes of its own, or those that torchrun has started."""

from __future__ import annotations

import logging
import multiprocessing
import os
import socket
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from streaming.errors import UserError
from trainer.device import Rank, join_ranks
from trainer.pipelines.imagenet.data import ImageData
from trainer.pipelines.imagenet.training import TaskTrainer
from workflow.experiments.imagenet.cases import PLAIN, Case
from workflow.experiments.imagenet.figures import figures
from workflow.experiments.imagenet.plain import train_plainly
from workflow.experiments.imagenet.settings import ImageExperiment
from workflow.experiments.methods import Method
from workflow.logs import configure_logging
from workflow.parent_death import die_with_parent

log = logging.getLogger(__name__)

END_S = 20.0
"""How long ranks that have told all results may take to end."""

OnResult = Callable[[Case, dict[str, Any]], None]
"""Is given every case with its figures, plain JSON values, as soon as it is done."""


def run_cases(config: ImageExperiment, cases: Sequence[Case], on_result: OnResult) -> None:
    """Run all cases; blocks. Those with the same number of ranks share their processes.

    Under torchrun every process calls this; rank 0 alone tells the results.

    Raises:
        UserError: data, buffer sizes or a model that cannot be used; a rank that died; cases for other numbers of ranks
            than torchrun's.
    """
    if "RANK" in os.environ:
        _check_world_size(cases)
        _run_in_rank(config, cases, on_result)
        return
    for ranks in dict.fromkeys(_processes(case) for case in cases):
        _run_in_processes(config, [case for case in cases if _processes(case) == ranks], on_result, ranks=ranks)


def _processes(case: Case) -> int:
    return 1 if case.part == PLAIN else case.ranks


def _check_world_size(cases: Sequence[Case]) -> None:
    world_size = int(os.environ["WORLD_SIZE"])
    if any(_processes(case) != world_size for case in cases):
        raise UserError(
            f"torchrun has started {world_size} ranks, but the experiment asks for other numbers too; set "
            f"experiment.ranks={world_size} and leave out experiment.rank_counts and experiment.plain, or run without"
        )


def _run_in_rank(config: ImageExperiment, cases: Sequence[Case], on_result: OnResult) -> None:
    data = ImageData(config.images)
    with join_ranks(config.training) as rank:
        for case in cases:
            found = _run(config, case, data, rank)
            if rank.rank == 0:
                on_result(case, found)


def _run(config: ImageExperiment, case: Case, data: ImageData, rank: Rank) -> dict[str, Any]:
    log.info("%s: %s, %s", case.part, case.method, case.parameters())
    settings = case.training(config.training, training_set=len(data.files.train))
    images = case.images(config.images)
    if case.part == PLAIN:
        return figures(train_plainly(settings, images, data, rank=rank, seed=case.seed, ranks=case.ranks))
    scratch = case.method is Method.FROM_SCRATCH
    trainer = TaskTrainer(settings, images, data, rank=rank, seed=case.seed, from_scratch=scratch)
    return figures(trainer.run())


def _run_in_processes(config: ImageExperiment, cases: Sequence[Case], on_result: OnResult, *, ranks: int) -> None:
    context = multiprocessing.get_context("spawn")
    results, sink = context.Pipe(duplex=False)
    port = _free_port()
    processes = [
        context.Process(target=_serve_rank, args=(config, cases, sink, rank, ranks, port, os.getpid()))
        for rank in range(ranks)
    ]
    try:
        for process in processes:
            process.start()
        sink.close()
        _collect(results, processes, cases, on_result)
        for process in processes:
            process.join(END_S)
    finally:
        for process in processes:
            process.terminate()
            process.join()
        results.close()


def _collect(
    results: Connection, processes: Sequence[SpawnProcess], cases: Sequence[Case], on_result: OnResult
) -> None:
    """Pass results on until all have come; a rank that ends too early ends all."""
    remaining = list(cases)
    while remaining:
        wait([results, *(process.sentinel for process in processes)])
        while results.poll():
            kind, content = results.recv()
            if kind == "error":
                raise UserError(content)
            on_result(remaining.pop(0), content)
        dead = [number for number, process in enumerate(processes) if process.exitcode not in (None, 0)]
        if dead and remaining and not results.poll():
            raise UserError(f"rank {dead[0]} of the experiment died with status {processes[dead[0]].exitcode}")


def _serve_rank(
    config: ImageExperiment, cases: Sequence[Case], sink: Connection, rank: int, ranks: int, port: int, parent_pid: int
) -> None:
    die_with_parent(parent_pid)
    configure_logging()
    if ranks > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank)}
        os.environ |= {"WORLD_SIZE": str(ranks), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(ranks)}
    try:
        _run_in_rank(config, cases, lambda case, found: sink.send(("result", found)))
    except UserError as error:
        sink.send(("error", str(error)))
        raise SystemExit(1) from None


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
