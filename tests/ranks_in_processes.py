"""Runs a function in several real processes that form one process group."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from typing import Any

from torch import distributed as dist


def _in_process(pipe: Connection, function: Callable[..., Any], rank: int, ranks: int, port: int, args: tuple) -> None:
    import torch  # noqa: PLC0415  after the fork

    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port, is_master=False)
    try:
        dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks, timeout=timedelta(seconds=60))
        dist.barrier()  # a rank that is done at once would be gone while others still connect to it
        pipe.send((True, function(rank, *args)))
    except BaseException:  # noqa: BLE001  everything must reach the test
        pipe.send((False, traceback.format_exc()))
    pipe.close()
    os._exit(0)  # no rank waits for another one's process group


def run_in_ranks(
    function: Callable[..., Any], ranks: int, *args: Any, doomed: tuple[int, ...] = (), timeout_s: float = 60.0
) -> list[Any]:
    """Call `function(rank, *args)` in `ranks` processes; return what each returned, None for those that were killed.

    Processes that do not end within `timeout_s` are killed and fail the test unless listed in `doomed`.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch.distributed", "scipy.stats", "pytest", "ptychoflow.buffer.rehearsal"])
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    pipes, processes = [], []
    for rank in range(ranks):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_in_process, args=(sender, function, rank, ranks, store.port, args))
        process.start()
        sender.close()
        pipes.append(receiver)
        processes.append(process)
    try:
        return _results(pipes, doomed, timeout_s)
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
            process.join()


def _results(pipes: list[Connection], doomed: tuple[int, ...], timeout_s: float) -> list[Any]:
    results: list[Any] = [None] * len(pipes)
    waited_for = [pipe for rank, pipe in enumerate(pipes) if rank not in doomed]
    while waited_for:
        ready = wait(waited_for, timeout_s)
        assert ready, f"ranks {[pipes.index(pipe) for pipe in waited_for]} gave no result within {timeout_s} s"
        for pipe in ready:
            assert isinstance(pipe, Connection)
            rank = pipes.index(pipe)
            waited_for.remove(pipe)
            succeeded, result = pipe.recv()
            assert succeeded, f"rank {rank} failed:\n{result}"
            results[rank] = result
    return results
