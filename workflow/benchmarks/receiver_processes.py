"""Processes that take what a benchmark sends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ptychoflow.workflow.benchmarks.helper_process import HelperProcess

ENDING_S = 10.0


@contextmanager
def receiver_processes(receivers: Sequence[tuple[Callable[..., None], tuple[Any, ...]]]) -> Iterator[list[int]]:
    """Run functions with their arguments, each in a fresh process; yield their numbers.

    What makes them end is sent to them before this ends; one that stays is killed.
    """
    processes = [HelperProcess(receive, *arguments) for receive, arguments in receivers]
    for process in processes:
        process.start()
    try:
        yield [process.pid for process in processes if process.pid is not None]
    finally:
        for process in processes:
            process.join(timeout=ENDING_S)
            if process.is_alive():
                process.kill()
