"""Ranks on two hosts, each of which resolves its own name to 127.0.1.1, as Debian has it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("unshare")):
    pytest.skip("network namespaces need root, ip and unshare", allow_module_level=True)

RANK = """
import importlib.util, os, sys
import torch, torch.distributed as dist
from ptychoflow.buffer import Field, RehearsalBuffer, Schema
from ptychoflow.trainer.device import join_ranks
from ptychoflow.trainer.settings import LearningSettings

rank = int(os.environ["RANK"])
transports = ["tcp", "ucx"] if importlib.util.find_spec("ucxx") else ["tcp"]
for case, (variable, setting) in enumerate([("", None), ("eth0", None), ("", "10.77.1.0/24")]):
    os.environ["GLOO_SOCKET_IFNAME"] = variable
    os.environ["MASTER_PORT"] = str(29500 + case)
    with join_ranks(LearningSettings(device="cpu", threads=1), interface=setting):
        total = torch.ones(1)
        dist.all_reduce(total)
        for transport in transports:
            with RehearsalBuffer(
                Schema(x=Field((8,), "float32")), capacity=16, representatives=8, candidates=4, transport=transport
            ) as buffer:
                for _ in range(3):
                    buffer.take()
                    buffer.offer({"x": torch.full((4, 8), float(rank))})
                buffer.take()
                dist.barrier()
                buffer.offer(None)
                print(case, transport, int(total), sorted(set(buffer.take().tensors["x"][:, 0].tolist())), flush=True)
                dist.barrier()
"""


def ip(*arguments: str, inside: str | None = None) -> None:
    namespace = () if inside is None else ("netns", "exec", inside, "ip")
    subprocess.run(["ip", *namespace, *arguments], check=True, capture_output=True, text=True)


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """Two network namespaces with a cable between them."""
    names = [f"ptychoflow-{os.getpid()}-{number}" for number in (1, 2)]
    made = []
    try:
        for name in names:
            try:
                ip("netns", "add", name)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
            made.append(name)
        ip("link", "add", "eth0", "netns", names[0], "type", "veth", "peer", "name", "eth0", "netns", names[1])
        for number, name in enumerate(names, start=1):
            ip("addr", "add", f"10.77.1.{number}/24", "dev", "eth0", inside=name)
            for interface in ("lo", "eth0"):
                ip("link", "set", interface, "up", inside=name)
        yield names
    finally:
        for name in made:
            ip("netns", "del", name)


def test_ranks_on_hosts_that_take_their_own_names_for_loopback_train_and_share_a_buffer(
    hosts: list[str], tmp_path: Path
) -> None:
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    processes = []
    for rank, namespace in enumerate(hosts):
        addresses = [f"10.77.1.{number + 1} host-{number}" for number in range(2)]
        addresses[rank] = f"127.0.1.1 host-{rank}"
        names = tmp_path / f"hosts-{rank}"
        names.write_text("\n".join(["127.0.0.1 localhost", *addresses, ""]))
        as_host = f"mount --bind {names} /etc/hosts && hostname host-{rank} && exec {sys.executable} {script}"
        environment = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1, "MASTER_ADDR": "host-0"}
        processes.append(
            subprocess.Popen(
                ["ip", "netns", "exec", namespace, "unshare", "--uts", "--mount", "--ipc", "sh", "-c", as_host],
                env={**os.environ, **{name: str(value) for name, value in environment.items()}},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        said = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (lines, errors) in zip(processes, said, strict=True):
        assert process.returncode == 0, errors[-3000:]
        cases = [line.split(" ", 3) for line in lines.splitlines()]
        assert {case for case, *_ in cases} == {"0", "1", "2"}
        assert all((ranks, values) == ("2", "[0.0, 1.0]") for _, _, ranks, values in cases), lines
