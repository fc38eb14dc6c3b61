"""Ranks that torchrun starts again after one of them was killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support import free_ports

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
