"""The processes of one run, by what they do in it, also of those whose parent is gone."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

import psutil

from ptychoflow.workflow.launching.torchrun import LOCAL_TORCHRUN

MARK = "CHAOS_RUN"
"""A variable that every process of a run inherits."""


class Victim(StrEnum):
    """Who is struck."""

    LAUNCHER = "launcher"
    WATCHDOG = "watchdog"
    ACQUISITION = "acquisition"
    TRAINER = "trainer"
    """The process that the launcher started: the only rank, or torchrun."""
    RANK = "a rank"
    EDGE = "edge"
    DASHBOARD = "dashboard"
    EVERYBODY = "everybody"


VERBS = {
    "run": Victim.LAUNCHER,
    "resume": Victim.LAUNCHER,
    "acquire": Victim.ACQUISITION,
    "train": Victim.TRAINER,
    "edge": Victim.EDGE,
    "dashboard": Victim.DASHBOARD,
}


def processes_of(mark: str) -> list[psutil.Process]:
    """Return the processes of a run that are alive."""
    return [process for process in psutil.process_iter() if _mark(process) == mark]


def victims(mark: str) -> Iterator[tuple[Victim, psutil.Process]]:
    """Yield the processes of a run that do something of their own; a rank that is the trainer is yielded twice."""
    found = [(role, process) for process in processes_of(mark) if (role := _role(process)) is not None]
    ids = {process.pid for _, process in found}
    torchrun = any(_is_torchrun(process) for _, process in found)
    for role, process in found:
        if role is not Victim.TRAINER:
            # a fork that reads a file for its parent has the same command line
            if role is not _role_of_parent(process):
                yield role, process
            continue
        if _is_torchrun(process) or not torchrun:
            yield Victim.TRAINER, process
        if not _is_torchrun(process) and (_parent(process) in ids or not torchrun):
            yield Victim.RANK, process


def described(process: psutil.Process) -> str:
    """Return one line about a process."""
    try:
        return f"{process.pid} ({process.status()}): {' '.join(_command(process))[-120:]}"
    except psutil.NoSuchProcess:
        return f"{process.pid}, which has ended"


def _mark(process: psutil.Process) -> str | None:
    try:
        return str(process.environ().get(MARK)) if process.status() != psutil.STATUS_ZOMBIE else None
    except (psutil.Error, OSError):  # it has ended, or is somebody else's
        return None


def _is_torchrun(process: psutil.Process) -> bool:
    return LOCAL_TORCHRUN in _command(process)


def _role(process: psutil.Process) -> Victim | None:
    command = _command(process)
    if "ptychoflow.workflow.launching.watchdog" in command:
        return Victim.WATCHDOG
    if "ptychoflow" not in command:
        return None
    after = command[command.index("ptychoflow") + 1 :]
    return VERBS.get(after[0]) if after else None


def _role_of_parent(process: psutil.Process) -> Victim | None:
    try:
        parent = process.parent()
    except psutil.Error:
        return None
    return None if parent is None else _role(parent)


def _parent(process: psutil.Process) -> int:
    try:
        return int(process.ppid())
    except psutil.NoSuchProcess:
        return -1


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []
