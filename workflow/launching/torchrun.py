"""Ranks are started by torchrun, which starts them again when one is killed, and end with it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from ptychoflow.streaming.device import available_processors

LOCAL_TORCHRUN = "ptychoflow.workflow.launching.local_torchrun"
SCRATCH_VARIABLE = "PTYCHOFLOW_SCRATCH"
"""Names a folder of this user's alone that is removed when the run ends, however it ends; ours makes one without."""
PR_SET_PDEATHSIG = 1
THREADS_VARIABLE = "OMP_NUM_THREADS"
RUN_VARIABLE = "TORCHELASTIC_RUN_ID"


def torchrun(*module: str, ranks: int, restarts: int) -> list[str]:
    """Return the command line that runs a module with its arguments on so many ranks of this host.

    Args:
        module: its name, then its arguments.
        ranks: processes.
        restarts: how often all of them are started again after one was lost.
    """
    return [
        *(sys.executable, "-m", LOCAL_TORCHRUN, f"--nproc-per-node={ranks}", f"--max-restarts={restarts}"),
        *("-m", *module),
    ]


def share_of_threads(processes: int) -> dict[str, str]:
    """Return the variables that share the processors among so many processes, unless the user has set them.

    Without a limit every process would start one thread per processor, and they would fight.
    """
    if THREADS_VARIABLE in os.environ:
        return {}
    return {THREADS_VARIABLE: str(max(1, available_processors() // processes))}


def under_torchrun() -> bool:
    """Whether torchrun has started this process."""
    return RUN_VARIABLE in os.environ


def die_with_parent(parent_pid: int) -> None:
    """Have the system send SIGKILL to this process when its parent `parent_pid` ends; does nothing outside Linux.

    torchrun puts every rank into a session of its own, so a rank would outlive a killed torchrun.
    """
    if sys.platform != "linux":
        return
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent_pid:  # it died before the call above
        os.kill(os.getpid(), signal.SIGKILL)
