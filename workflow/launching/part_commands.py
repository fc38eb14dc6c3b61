"""The command line and environment with which the launcher starts each part."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from ptychoflow.streaming.events import Part
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.trainer.settings import StreamSettings
from ptychoflow.workflow.environment import available_processors
from ptychoflow.workflow.launching.supervision import PartCommand

COMMAND_OF_PART: Mapping[Part, str] = {
    Part.ACQUISITION: "acquire",
    Part.TRAINER: "train",
    Part.EDGE: "edge",
    Part.DASHBOARD: "dashboard",
}


THREADS_VARIABLE = "OMP_NUM_THREADS"


def part_command(part: Part, folder: RunFolder, trainer: StreamSettings, *, master_port: int) -> PartCommand:
    """Return how to start `part` of the run in `folder`.

    Args:
        part: which part.
        folder: where its configuration and its log are.
        trainer: more than one rank are started, and started again when one is lost, by torchrun.
        master_port: where the ranks meet; used for more than one rank only.
    """
    own = ["-m", "ptychoflow", COMMAND_OF_PART[part], "--config", str(folder.config)]
    if part is Part.DASHBOARD:
        own.append("--no-hub")
    python = [sys.executable]
    if part is Part.TRAINER and trainer.ranks > 1:
        python += _torchrun(trainer, master_port)
    return PartCommand(part, [*python, *own], folder.log(part), _environment(part, trainer.ranks))


def _torchrun(trainer: StreamSettings, master_port: int) -> list[str]:
    return [
        "-m",
        "torch.distributed.run",
        f"--nproc_per_node={trainer.ranks}",
        f"--max_restarts={trainer.restarts}",
        "--master_addr=127.0.0.1",
        f"--master_port={master_port}",
    ]


def _environment(part: Part, ranks: int) -> dict[str, str]:
    """Share the processors: without a limit every part would start one thread per processor, and they would fight."""
    if THREADS_VARIABLE in os.environ:
        return {}
    processes = ranks if part is Part.TRAINER else 1
    return {THREADS_VARIABLE: str(max(1, available_processors() // processes))}
