"""Ranks that join on the device: one, and two that share a GPU."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.connection import Connection

import torch
import torch.distributed as dist

from ptychoflow.streaming.device import Device
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.trainer.device import join_ranks
from ptychoflow.trainer.models.arithmetic import resolve
from ptychoflow.trainer.models.precision import Precision
from ptychoflow.trainer.pipelines.ptychography.settings import TrainerSettings
from ptychoflow.trainer.settings import StrategyName
from ptychoflow.trainer.strategies.incremental import Incremental
from ptychoflow.workflow.benchmarks.bare_loop import alone
from ptychoflow.workflow.benchmarks.gpu.networks import batch_of, learner_of, pipeline_of, settings_of
from ptychoflow.workflow.benchmarks.gpu.section import ERRORS, Figures, Setup, Skipped, Unmet
from ptychoflow.workflow.benchmarks.helper_process import HelperProcess
from ptychoflow.workflow.launching.ports import choose_port

PATIENCE_S = 60.0


def one_rank(setup: Setup) -> Figures:
    """Train a step on one rank of a process group."""
    before = dict(os.environ)
    os.environ |= _environment(0, 1, choose_port(NetworkSettings(), ranks=1))
    try:
        return _step(setup)
    finally:
        os.environ.clear()
        os.environ.update(before)


def two_ranks(setup: Setup) -> Figures:
    """Train a step on two ranks; where there is one GPU, they share it."""
    if setup.short:
        raise Skipped("needs more than a moment")
    return _together(setup, 2)


def _together(setup: Setup, world_size: int) -> Figures:
    port = choose_port(NetworkSettings(), ranks=1)
    pipes = [multiprocessing.Pipe() for _ in range(world_size)]
    processes = [HelperProcess(_rank, theirs, setup, rank, world_size, port) for rank, (_, theirs) in enumerate(pipes)]
    for process in processes:
        process.start()
    for _, theirs in pipes:
        theirs.close()
    try:
        answers = [_answer(ours) for ours, _ in pipes]
    finally:
        for process in processes:
            process.kill()
            process.join()
    for rank, answer in enumerate(answers):
        if "error" in answer:
            raise Unmet(f"rank {rank} of {world_size}: {answer['error']}")
    weights = {answer["weights"] for answer in answers}
    figures: Figures = {
        f"rank_{rank}": f"{answer['device']}, {answer['backend']}" for rank, answer in enumerate(answers)
    }
    if len(weights) > 1:
        raise Unmet(f"after a step the weights of {world_size} ranks differ", figures)
    return figures


def _answer(connection: Connection) -> Figures:
    if not connection.poll(PATIENCE_S):
        return {"error": f"no answer within {PATIENCE_S:.0f} s"}
    try:
        answer: Figures = connection.recv()
    except EOFError:
        return {"error": "it ended without an answer; its traceback is above"}
    return answer


def _rank(connection: Connection, setup: Setup, rank: int, world_size: int, port: int) -> None:
    os.environ |= _environment(rank, world_size, port)
    try:
        connection.send(_step(setup))
    except (*ERRORS, UserError) as error:
        connection.send({"error": f"{type(error).__name__}: {error}"})


def _environment(rank: int, world_size: int, port: int) -> dict[str, str]:
    """Return what torchrun would tell a rank."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _step(setup: Setup) -> Figures:
    device = Device.CUDA if setup.device.type == "cuda" else Device.CPU
    with join_ranks(TrainerSettings(device=device, threads=1)) as joined:
        settings = settings_of(setup, StrategyName.INCREMENTAL)
        precision = resolve(Precision.AUTO, joined.device)
        learner = learner_of(setup, settings, device=joined.device, precision=precision)
        strategy = Incremental(pipeline_of(setup), device=joined.device)
        batch = batch_of(setup, joined.rank, joined.device)
        learner.train(batch, strategy, alone(batch))
        with learner.resting() as network:
            weights = float(sum(parameter.detach().double().sum() for parameter in network.parameters()))
        flags = torch.ones(1)
        dist.all_reduce(flags)  # of the host, beside those of the device
        dist.barrier()
        return {"device": str(joined.device), "backend": dist.get_backend(), "weights": weights}
