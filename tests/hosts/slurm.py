"""A SLURM cluster on this machine: a controller and nodes on hosts of their own, munge between them."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import namespaces
from support import wait_until

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
CONTROLLER = "control"
CONFIGURATION = """
ClusterName=onemachine
SlurmctldHost={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={files}/munge.socket
StateSaveLocation={files}/state
SlurmctldPidFile={files}/slurmctld.pid
SlurmctldLogFile={files}/slurmctld.log
SlurmdSpoolDir={files}/spool.%n
SlurmdPidFile={files}/slurmd.%n.pid
SlurmdLogFile={files}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=30
{nodes}
PartitionName=all Nodes=ALL Default=YES State=UP
"""


def missing() -> str:
    """Return why there can be no cluster here, or nothing."""
    lacking = [program for program in PROGRAMS if shutil.which(program) is None]
    return namespaces.missing() or (
        f"SLURM needs {', '.join(lacking)}: Debian's slurm-wlm and munge" if lacking else ""
    )


class Cluster:
    """A cluster that is up.

    Args:
        hosts: the controller and the nodes.
        files: folder of its configuration and logs.
        folder: from which jobs are submitted.
    """

    def __init__(self, hosts: dict[str, namespaces.Host], files: Path, folder: Path) -> None:
        self.hosts, self.folder = hosts, folder
        self.environment = {"SLURM_CONF": str(files / "slurm.conf")}

    def run(self, *arguments: str) -> str:
        """Run a command where jobs are submitted; return what it prints."""
        environment = os.environ | namespaces.ENVIRONMENT | self.environment
        ended = subprocess.run(
            self.hosts[CONTROLLER].command(*arguments),
            cwd=self.folder, env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, f"{arguments}: {ended.stdout}{ended.stderr}"
        return ended.stdout

    def job(self, number: str) -> dict[str, str]:
        """Return what SLURM says of a job."""
        said = self.run("scontrol", "show", "job", number)
        return dict(word.partition("=")[::2] for word in said.split() if "=" in word)


@contextmanager
def cluster(nodes: Sequence[str], *, files: Path, folder: Path) -> Iterator[Cluster]:
    """Yield a cluster with these nodes; when the context ends, nothing of it is left."""
    for name in ("state", *(f"spool.{node}" for node in nodes)):
        (files / name).mkdir()
    with namespaces.network([CONTROLLER, *nodes], subnet="10.79.0", files=files) as hosts:
        lines = "\n".join(f"NodeName={node} NodeAddr={hosts[node].address} CPUs=4 State=UNKNOWN" for node in nodes)
        text = CONFIGURATION.format(controller=CONTROLLER, files=files, nodes=lines)
        (files / "slurm.conf").write_text(text)
        up = Cluster(hosts, files, folder)
        _start_munge(hosts[CONTROLLER], files)
        daemons = {CONTROLLER: ["slurmctld", "-D"]} | {node: ["slurmd", "-D", "-N", node] for node in nodes}
        for name, daemon in daemons.items():
            hosts[name].start(*daemon, folder=files, log=files / f"{name}.log", environment=up.environment)
        wait_until(lambda: _idle(up, len(nodes)), timeout_s=60)
        yield up


def _start_munge(host: namespaces.Host, files: Path) -> None:
    key = files / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    options = [f"--{name}={files / f'munge.{name}'}" for name in ("socket", "pid-file", "log-file", "seed-file")]
    host.start(
        "munged", "--foreground", "--force", f"--key-file={key}", *options, folder=files, log=files / "munged.log"
    )
    wait_until((files / "munge.socket").exists)


def _idle(up: Cluster, nodes: int) -> bool:
    try:
        said = json.loads(up.run("sinfo", "--json"))
    except (AssertionError, ValueError):
        return False
    return [node["state"] for node in said["nodes"]] == ["idle"] * nodes
