"""Ending processes in order, and without mercy once their time is up. Used by the launcher and by the watchdog."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Sequence

import psutil

POLL_S = 0.05
GRACE_S = 7.0
"""With summary and report, Ctrl-C ends a run within ten seconds; parts that work as they should need one or two."""


def is_alive(process: psutil.Process) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def terminate_in_order(stages: Sequence[Sequence[psutil.Process]], *, grace_s: float) -> None:
    """Ask the processes of each stage at once with SIGTERM to end.

    The next stage is asked when the one before has ended, or has used its share of `grace_s`: the same for each process
    of any stage. Then kill what is left of them, of their descendants and of their process groups. Blocks for at most
    about `grace_s`. Processes that ended before are skipped.
    """
    processes = [process for stage in stages for process in stage]
    families = {process.pid: family(process) for process in processes}
    started_s = time.monotonic()
    asked = 0
    for stage in stages:
        for process in filter(is_alive, stage):
            families[process.pid] = family(process)
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        asked += len(stage)
        if stage:
            _wait_until_gone(stage, deadline_s=started_s + grace_s * asked / len(processes))
    _wait_until_gone(processes, deadline_s=started_s + grace_s)
    for process in processes:
        kill_family(process, families[process.pid])


def family(process: psutil.Process) -> list[psutil.Process]:
    """Return the process's descendants, which may have left its process group."""
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def kill_family(process: psutil.Process, descendants: Iterable[psutil.Process]) -> None:
    """Kill what is left of a process that leads its own group: itself, its group and the descendants given."""
    members = [*family(process), *descendants, process]
    # a group outlives its leader; its id is not given to another process while a member is left
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for member in members:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()


def _wait_until_gone(processes: Sequence[psutil.Process], *, deadline_s: float) -> None:
    while any(is_alive(process) for process in processes) and time.monotonic() < deadline_s:
        time.sleep(POLL_S)
