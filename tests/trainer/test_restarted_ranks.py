"""Ranks that torchrun starts again after one of them was killed."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from support import free_ports, wait_until
from trainer_streams import samples, scan_start

from ptychoflow.streaming.messages import Samples, ScanEnd
from ptychoflow.streaming.publisher import Publisher
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.trainer.online.receiver import let_go_again

RANK = """
import os, signal, sys, time
from pathlib import Path
import torch.distributed as dist
from ptychoflow.trainer.device import join_ranks
from ptychoflow.trainer.pipelines.ptychography.settings import TrainerSettings

folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
first_start = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
other = folder / "other is about to join"
deadline_s = time.monotonic() + 60
while rank == 0 and not first_start and not other.exists() and time.monotonic() < deadline_s:
    time.sleep(0.05)
if rank == 1 and not first_start:
    other.touch()
with join_ranks(TrainerSettings(device="cpu", threads=1)):
    dist.barrier()
    if first_start and rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if first_start:
        time.sleep(60)
    (folder / f"rank-{rank}").touch()
"""


def test_ranks_that_are_started_again_find_each_other_and_not_those_before_them(tmp_path: Path) -> None:
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    (port,) = free_ports(1)
    options = ["--nproc_per_node=2", "--max_restarts=1", "--master_addr=127.0.0.1", f"--master_port={port}"]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *options, str(script), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "rank-0").exists()
    assert (tmp_path / "rank-1").exists()


LEAVING_RANK = """
import os, signal, sys, threading
from pathlib import Path
from ptychoflow.streaming.settings import NetworkSettings, RunContext
from ptychoflow.trainer.online import receiver
from ptychoflow.trainer.pipelines.ptychography.settings import TrainerSettings
from ptychoflow.trainer.service import train

receiver.LETTING_GO_S = 2.0
leave = receiver.SampleReceiver.__exit__

def leave_and_die(self, *error):
    leave(self, *error)
    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)

receiver.SampleReceiver.__exit__ = leave_and_die
settings = TrainerSettings(
    device="cpu", threads=1, batch_size=2, finish_s=0, wait_until_served_s=0, strategy="incremental", model={"width": 2}
)
network = NetworkSettings.model_validate_json(sys.argv[2])
train(settings, network=network, run=RunContext("test", Path(sys.argv[1]), 0), stop=threading.Event())
"""


def test_ranks_of_which_one_was_killed_on_its_way_out_end_and_do_not_wait_for_another_stream(
    tmp_path: Path, network: NetworkSettings
) -> None:
    script = tmp_path / "rank.py"
    script.write_text(LEAVING_RANK)
    (port,) = free_ports(1)
    options = ["--nproc_per_node=2", "--max_restarts=1", "--master_addr=127.0.0.1", f"--master_port={port}"]
    command = [sys.executable, "-m", "torch.distributed.run", *options, str(script), str(tmp_path)]
    with (
        Publisher(network, spool_dir=tmp_path / "spool", memory_bytes=1 << 20, edge=False) as publisher,
        subprocess.Popen([*command, network.model_dump_json()], stderr=subprocess.PIPE, text=True) as ranks,
    ):
        publisher.post_to_ranks(scan_start())
        for first in range(0, 16, 4):
            publisher.post_samples(Samples(perspective=0), samples(range(first, first + 4)))
        publisher.post_to_ranks(ScanEnd(16))

        def acknowledged() -> bool:
            publisher.pump(0.02)
            return publisher.world_size == 2 and publisher.unacknowledged == 0

        wait_until(acknowledged, timeout_s=100)
        publisher.close()
        _, errors = ranks.communicate(timeout=100)
    assert ranks.returncode == 0, errors[-2000:]


def test_ranks_that_have_nothing_to_do_let_go_of_what_the_acquisition_still_has(
    tmp_path: Path, network: NetworkSettings
) -> None:
    with (
        Publisher(network, spool_dir=tmp_path, memory_bytes=1 << 20, edge=False) as publisher,
        ThreadPoolExecutor(2) as ranks,
    ):
        publisher.post_to_ranks(scan_start())
        publisher.post_samples(Samples(perspective=0), samples(range(4)))
        publisher.post_to_ranks(ScanEnd(4))
        stop = threading.Event()
        leaving = [ranks.submit(let_go_again, network, rank=rank, world_size=2, stop=stop) for rank in range(2)]

        def acknowledged() -> bool:
            publisher.pump(0.02)
            return publisher.world_size == 2 and publisher.unacknowledged == 0

        wait_until(acknowledged)
        for rank in leaving:
            rank.result(10)
