"""Ties a process to its parent: the system kills it when the parent dies, however that happens (Linux)."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


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
