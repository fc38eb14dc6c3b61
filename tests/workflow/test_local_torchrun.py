"""torchrun for ranks of one host: what it leaves, and ranks that are started again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ptychoflow.streaming.private_folder import RUNTIME_VARIABLE
from ptychoflow.workflow.launching.torchrun import torchrun

RANK = """
import os, signal, sys
from pathlib import Path
import psutil
import torch.distributed as dist
from listening import addresses_listened_at, beyond_loopback
from ptychoflow.trainer.device import join_ranks
from ptychoflow.trainer.meeting import MEETING_VARIABLE
from ptychoflow.trainer.settings import LearningSettings

folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
first_start = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
with join_ranks(LearningSettings(device="cpu", threads=1)):
    dist.barrier()
    if first_start:
        os.kill(os.getpid(), signal.SIGKILL)
    everybody = [psutil.Process(), psutil.Process(os.getppid())]
    assert not beyond_loopback(addresses_listened_at(everybody))
    (folder / f"rank-{rank}").write_text(os.environ[MEETING_VARIABLE])
    dist.barrier()
"""


def test_ranks_that_are_killed_meet_again_in_another_file_and_no_folder_is_left(tmp_path: Path) -> None:
    module = tmp_path / "rank_of_a_test.py"
    module.write_text(RANK)
    (tmp_path / "runtime").mkdir(mode=0o700)
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1]), *sys.path])
    done = subprocess.run(
        torchrun(module.stem, str(tmp_path), ranks=2, restarts=1),
        env={**os.environ, RUNTIME_VARIABLE: str(tmp_path / "runtime"), "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    met_in = {(tmp_path / f"rank-{rank}").read_text() for rank in range(2)}
    assert len(met_in) == 1
    assert met_in.pop().endswith("-2")
    assert not list((tmp_path / "runtime").iterdir())
