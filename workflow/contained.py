"""Runs what reads files from outside in a process of its own: damaged ones may crash a library, or never let it end."""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NoReturn

from ptychoflow.acquisition.reading import READING
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.signal_name import signal_name
from ptychoflow.workflow.exit_status import FAILED_STATUS, INTERRUPTED_STATUS, USER_ERROR_STATUS

MEMORY_BYTES = 2**34
"""What the process may have: ten times what the largest detectors need. Files mapped into memory do not count."""
COMPUTING_LIMIT_S = 120
"""Of processor time from one reading to the next, which takes seconds. Waiting for a slow disk takes none."""
CRASHES = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL})
ADVICE = "the file is damaged, or holds what the library cannot read: check it (HDF5: h5check), or copy it again"
LIBRARY = re.compile(r'^  File ".*/(?:site|dist)-packages/(\w+)', re.MULTILINE)
"""In the stack of Python's fault handler, innermost first."""


class _Said(StrEnum):
    """How a line from the process begins."""

    READING = "reading"
    REFUSED = "refused"
    TOO_LARGE = "too large"
    UNREAD = "unread"
    """Nobody reads what is printed any more."""
    REPORTED = "reported"
    """What went wrong was reported by the copy itself."""


def contained(work: Callable[[], object], files: Sequence[Path]) -> None:
    """Do `work`, which reads `files`, in a copy of this process, and return when it is done.

    The copy prints where this process does. It has no threads but the calling one: do this before any is started.

    Raises:
        UserError: `work` has raised it, or the copy crashed, needed too much memory or did not end.
        BrokenPipeError: nobody reads what the copy prints any more.
        SystemExit: `work` has raised anything else, which was reported as an uncaught exception of this process is.
        KeyboardInterrupt: Ctrl-C; the copy is gone.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _work_and_exit(work, writing)
    os.close(writing)
    status: int | None = None
    try:
        with os.fdopen(reading, "rb") as pipe:
            said = pipe.read().decode(errors="replace")
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        if status is None:  # Ctrl-C
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    if status != 0:
        _raise(status, said, files)


# In the copy


def _work_and_exit(work: Callable[[], object], writing: int) -> NoReturn:
    """Do the work and end the process: nothing of what its parent was about may happen twice."""
    status = FAILED_STATUS
    gc.freeze()  # what the parent has made and dropped is the parent's to end: a library may wait for its threads
    try:
        _set_bounds(writing)
        status = _work(work, writing)
    finally:
        if (error := sys.exception()) is not None:
            sys.excepthook(type(error), error, error.__traceback__)
            _say(writing, _Said.REPORTED, "")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _set_bounds(writing: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    memory = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (memory, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    faulthandler.enable(writing)
    faulthandler.register(signal.SIGXCPU, writing, chain=True)
    READING.addHandler(_Notes(writing))
    READING.setLevel(logging.DEBUG)
    READING.propagate = False
    _allow_computing()


def _allow_computing() -> None:
    """Let the process be ended by SIGXCPU once it has computed for so long from now on."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    limit_s = int(time.process_time()) + COMPUTING_LIMIT_S
    resource.setrlimit(resource.RLIMIT_CPU, (limit_s if hard == resource.RLIM_INFINITY else min(limit_s, hard), hard))


class _Notes(logging.Handler):
    """Tells the parent what is read next."""

    def __init__(self, writing: int) -> None:
        super().__init__()
        self._writing, self._parent = writing, os.getppid()

    def emit(self, record: logging.LogRecord) -> None:
        """Tell it, unless there is nobody left to be told."""
        if os.getppid() != self._parent:
            os._exit(FAILED_STATUS)
        _say(self._writing, _Said.READING, record.getMessage())
        _allow_computing()


def _work(work: Callable[[], object], writing: int) -> int:
    try:
        work()
        sys.stdout.flush()
    except UserError as error:
        _say(writing, _Said.REFUSED, str(error))
        return USER_ERROR_STATUS
    except MemoryError:
        _say(writing, _Said.TOO_LARGE, "")
        return USER_ERROR_STATUS
    except (BrokenPipeError, SystemExit):  # rich makes the latter of it
        _say(writing, _Said.UNREAD, "")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED_STATUS
    except KeyboardInterrupt:
        return INTERRUPTED_STATUS
    return 0


def _say(writing: int, kind: _Said, text: str) -> None:
    os.write(writing, f"{kind}: {' '.join(text.split())}\n".encode(errors="replace"))


# In its parent


def _raise(status: int, said: str, files: Sequence[Path]) -> NoReturn:
    """Raise what became of the copy."""
    last = {kind: text for kind, _, text in (line.partition(": ") for line in said.splitlines())}
    names = f"{files[0]}{f' and {len(files) - 1} others' if len(files) > 1 else ''}"
    reading = last.get(_Said.READING) or names
    if _Said.REFUSED in last:
        raise UserError(last[_Said.REFUSED])
    if status == INTERRUPTED_STATUS:
        raise KeyboardInterrupt
    if _Said.UNREAD in last:
        raise BrokenPipeError
    if _Said.REPORTED in last:
        raise SystemExit(FAILED_STATUS)
    if _Said.TOO_LARGE in last:
        raise UserError(
            f"{reading}: reading it needs more memory than the {MEMORY_BYTES >> 30} GiB that it may take; is the file "
            "damaged? If not, cut its frames out before"
        )
    found = LIBRARY.search(said)
    library = f"a library ({found[1]})" if found else "a library"
    if status == -signal.SIGXCPU:
        raise UserError(f"{reading}: {library} did not end in {COMPUTING_LIMIT_S} s of computing; {ADVICE}")
    if -status in CRASHES:
        raise UserError(f"{reading}: {library} crashed while it read this ({_cause(status)}); {ADVICE}")
    raise UserError(f"{reading}: the process that read this {_cause(status)}; was it killed, or is memory short?")


def _cause(status: int) -> str:
    return f"ended by {signal_name(-status)}" if status < 0 else f"ended with status {status}"
