"""Several hosts on this machine: each with its own network, name, hosts file, IPC, /dev/shm and processes.

Linux namespaces, so root is needed. What is left of one when its first process is killed, the kernel ends.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
from support import wait_until

TOOLS = ("ip", "unshare", "nsenter", "hostname", "mount")
BECOME_A_HOST = """
hostname "$0"
mount --bind "$1" /etc/hosts
mount -t tmpfs tmpfs /dev/shm
# /sys shows the interfaces of the network in which it is mounted
mkdir "$1.cgroup"
mount --rbind /sys/fs/cgroup "$1.cgroup"
mount -t sysfs sysfs /sys
mount --rbind "$1.cgroup" /sys/fs/cgroup
exec sleep infinity
"""
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONDONTWRITEBYTECODE": "1"}


def missing() -> str:
    """Return why there can be no hosts here, or nothing."""
    if os.geteuid() != 0:
        return "hosts of their own need root"
    if lacking := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"hosts of their own need {', '.join(lacking)}"
    tried = subprocess.run(
        ["unshare", "--net", "--uts", "--ipc", "--mount", "--pid", "--fork", "true"], capture_output=True, check=False
    )
    return f"hosts of their own are not allowed here: {tried.stderr.decode().strip()}" if tried.returncode else ""


class Host:
    """One of them.

    Args:
        name: its host name.
        address: in the network that all share.
        namespace: of its network.
        port: of the switch, as the namespace and the name of an interface.
        files: folder for its own files.
    """

    def __init__(self, name: str, address: str, *, namespace: str, port: tuple[str, str], files: Path) -> None:
        self.name, self.address = name, address
        self._namespace = namespace
        self._switch, self._port = port
        self._hosts_file = files / f"hosts.{name}"
        self._first: subprocess.Popen[bytes] | None = None

    def boot(self, hosts: str) -> None:
        """Start its first process; `hosts` is what its hosts file says."""
        self._hosts_file.write_text(f"127.0.0.1 localhost\n{hosts}")
        self._first = subprocess.Popen(
            [
                *("nsenter", f"--net=/run/netns/{self._namespace}", "unshare", "--uts", "--ipc", "--mount", "--pid"),
                *(
                    "--fork",
                    "--kill-child=SIGKILL",
                    "--mount-proc",
                    "sh",
                    "-ec",
                    BECOME_A_HOST,
                    self.name,
                    str(self._hosts_file),
                ),
            ],
            start_new_session=True,
        )
        self._init = _only_child(self._first.pid)
        _wait_for_name(self)

    def command(self, *arguments: str) -> list[str]:
        """Return the command line that runs a command there."""
        return ["nsenter", f"--target={self._init.pid}", "--all", "--wd=.", "--", *arguments]

    def start(
        self, *arguments: str, folder: Path, log: Path, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a command there, with its output appended to a log."""
        with log.open("ab") as output:
            return subprocess.Popen(
                self.command(*arguments),
                cwd=folder,
                env=os.environ | ENVIRONMENT | dict(environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run(self, *arguments: str, timeout_s: float = 60.0, environment: Mapping[str, str] | None = None) -> str:
        """Run a command there; return what it prints."""
        environment = os.environ | ENVIRONMENT | dict(environment or {})
        command = self.command(*arguments)
        ended = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=environment, check=False)
        if ended.returncode:
            raise RuntimeError(f"{arguments} on {self.name}: {ended.stdout}{ended.stderr}")
        return ended.stdout

    def processes(self) -> list[psutil.Process]:
        """Return what runs there, but for the first process."""
        return [one for one in psutil.process_iter() if one.pid != self._init.pid and self._holds(one)]

    def set_link(self, *, up: bool) -> None:
        """Plug the network cable in at the switch, or pull it."""
        _ip("-n", self._switch, "link", "set", self._port, "up" if up else "down")

    def halt(self) -> None:
        """Kill everything there."""
        if self._first is not None:
            self._first.kill()
            self._first.wait()
            self._first = None

    def _holds(self, process: psutil.Process) -> bool:
        try:
            return Path(f"/proc/{process.pid}/ns/pid").readlink() == Path(f"/proc/{self._init.pid}/ns/pid").readlink()
        except OSError:
            return False


@contextmanager
def network(
    names: Sequence[str], *, subnet: str, files: Path, own_name: str | None = None
) -> Iterator[dict[str, Host]]:
    """Yield hosts with a switch between them, by name.

    Args:
        names: of the hosts.
        subnet: first three numbers of their addresses.
        files: folder for their own files.
        own_name: address that each host's own name has in its hosts file, as Debian writes 127.0.1.1; without, its
            address in the network.
    """
    prefix = f"pf{os.getpid() % 100_000}"
    switch = f"{prefix}s"
    spaces = [f"{prefix}h{number}" for number in range(1, len(names) + 1)]
    hosts = {
        name: Host(name, f"{subnet}.{number}", namespace=space, port=(switch, f"{space}p"), files=files)
        for number, (name, space) in enumerate(zip(names, spaces, strict=True), start=1)
    }
    try:
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "br0", "type", "bridge")
        _ip("-n", switch, "link", "set", "br0", "up")
        for space, host in zip(spaces, hosts.values(), strict=True):
            _ip("netns", "add", space)
            _ip("link", "add", f"{space}p", "netns", switch, "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("-n", switch, "link", "set", f"{space}p", "master", "br0", "up")
            _ip("-n", space, "addr", "add", f"{host.address}/24", "dev", "eth0")
            _ip("-n", space, "link", "set", "eth0", "up")
            _ip("-n", space, "link", "set", "lo", "up")
            addresses = {other.name: other.address for other in hosts.values()}
            addresses[host.name] = own_name or host.address
            host.boot("".join(f"{address} {name}\n" for name, address in addresses.items()))
        yield hosts
    finally:
        for host in hosts.values():
            host.halt()
        for space in (*spaces, switch):
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)


def end(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> None:
    """Send a signal to what `Host.start` started; `nsenter` itself passes none on."""
    for child in psutil.Process(process.pid).children():
        child.send_signal(number)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _only_child(pid: int) -> psutil.Process:
    parent = psutil.Process(pid)
    wait_until(lambda: bool(parent.children()))
    (child,) = parent.children()
    return child


def _wait_for_name(host: Host) -> None:
    wait_until(lambda: host.run("cat", "/proc/1/comm").strip() == "sleep")
