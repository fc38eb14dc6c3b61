"""A place of its own for a campaign: network, mounts, shared memory and processes that nobody else sees or keeps.

Within it the loopback can be taken down and small disks be mounted, what a run leaves behind is its own, and the system
removes everything with the campaign. It needs Linux, and root or user namespaces.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

VARIABLE = "CHAOS_APART"
OWN = ("--net", "--mount", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc")


def is_apart() -> bool:
    """Whether this process is in a place of its own."""
    return VARIABLE in os.environ


def go_apart() -> str | None:
    """Run this program again in a place of its own, or return why that cannot be had; returns None in that place."""
    if is_apart():
        _prepare()
        return None
    command = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), *OWN]
    try:
        tried = subprocess.run([*command, "ip", "link", "set", "lo", "up"], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        return str(error)
    if tried.returncode != 0:
        return tried.stderr.strip()
    os.execvpe(command[0], [*command, sys.executable, *sys.argv], os.environ | {VARIABLE: "1"})
    return None


def set_loopback(state: str) -> None:
    """Take the loopback `up` or `down`."""
    subprocess.run(["ip", "link", "set", "lo", state], check=True)


def mount_small_disk(folder: Path, size_bytes: int) -> None:
    """Mount a disk of this size; nothing else may happen to it but `unmount`."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", folder], check=True)


def unmount(folder: Path) -> None:
    """Remove a small disk with everything on it."""
    subprocess.run(["umount", "--lazy", folder], check=True)


def _prepare() -> None:
    if os.getpid() == 1:  # processes whose parent was killed come to this one, which must take note of their end
        child = os.fork()
        while child:
            ended, status = os.wait()
            if ended == child:
                sys.exit(os.waitstatus_to_exitcode(status))
    set_loopback("up")
    mount_small_disk(Path("/dev/shm"), 1 << 30)
