"""Ending processes in order, and without mercy once their time is up. Used by the launcher and by the watchdog."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Sequence

import psutil

POLL_S = 0.05
GRACE_S = 12.0
"""Leaves the edge time to write its images on a busy host; parts that work as they should need a second or two."""


def is_alive(process: psutil.Process) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def terminate_in_order(processes: Sequence[psutil.Process], *, grace_s: float) -> None:
    """Ask each process with SIGTERM to end, the next one when the one before has ended or used its share of `grace_s`.

    Then kill what is left of them, of their descendants and of their process groups. Blocks for at most about
    `grace_s`. Processes that ended before are skipped.
    """
    families = {process.pid: family(process) for process in processes}
    started_s = time.monotonic()
    for position, process in enumerate(processes, start=1):
        if is_alive(process):
            families[process.pid] = family(process)
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        _wait_until_gone([process], deadline_s=started_s + grace_s * position / len(processes))
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
