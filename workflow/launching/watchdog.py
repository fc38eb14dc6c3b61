"""A process that outlives a killed launcher long enough to end the parts.

The launcher holds the writing end of this process's standard input and writes the id of every part that it starts.
The input ends when the launcher does, however it ends; what still runs then is terminated, in the order of starting.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import psutil

from ptychoflow.workflow.launching.processes import terminate_in_order


class Watchdog:
    """The launcher's side: starts the watching process, tells it about parts, and lets it go at the end.

    Args:
        grace_s: parts that have not ended this long after they were asked to are killed.
        held: file descriptors that the watching process keeps open.
        scratch: folder that it removes at the end.
    """

    def __init__(self, *, grace_s: float, held: Sequence[int] = (), scratch: Path | None = None) -> None:
        removed = [] if scratch is None else [str(scratch)]
        self._process = subprocess.Popen(  # noqa: S603 our own command line
            [sys.executable, "-m", "ptychoflow.workflow.launching.watchdog", str(grace_s), *removed],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
            pass_fds=held,
        )

    def __enter__(self) -> Watchdog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def watch(self, pid: int) -> None:
        """End this process, should the launcher disappear; it must lead its own process group.

        A watching process that was killed hears of nothing: parts then notice by themselves that the launcher is gone.
        """
        pipe = self._pipe()
        with contextlib.suppress(BrokenPipeError):
            pipe.write(f"{pid}\n")
            pipe.flush()

    def close(self) -> None:
        """End the watching process, which first ends every part that still runs. Blocks for at most its grace time."""
        with contextlib.suppress(BrokenPipeError):  # what it did not hear of
            self._pipe().close()
        self._process.wait()

    def _pipe(self) -> IO[str]:
        if self._process.stdin is None:
            raise RuntimeError("the watchdog was started without a pipe")
        return self._process.stdin


def watch_input(lines: IO[str], *, grace_s: float) -> None:
    """Collect process ids, one a line, until the input ends; then end those that still run."""
    processes: list[psutil.Process] = []
    for line in lines:
        with contextlib.suppress(psutil.NoSuchProcess):
            processes.append(psutil.Process(int(line)))
    terminate_in_order([[process] for process in processes], grace_s=grace_s)


if __name__ == "__main__":
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    watch_input(sys.stdin, grace_s=float(sys.argv[1]))
    for removed in sys.argv[2:]:
        shutil.rmtree(removed, ignore_errors=True)
