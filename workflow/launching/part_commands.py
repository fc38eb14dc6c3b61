"""The command line and environment with which the launcher starts each part."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from ptychoflow.streaming.events import Part
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.trainer.settings import StreamSettings
from ptychoflow.workflow.launching.supervision import PartCommand
from ptychoflow.workflow.launching.torchrun import SCRATCH_VARIABLE, share_of_threads, torchrun

COMMAND_OF_PART: Mapping[Part, str] = {
    Part.ACQUISITION: "acquire",
    Part.TRAINER: "train",
    Part.EDGE: "edge",
    Part.DASHBOARD: "dashboard",
    Part.OUTPUTS: "outputs",
}


def part_command(part: Part, folder: RunFolder, trainer: StreamSettings, *, scratch: Path | None) -> PartCommand:
    """Return how to start `part` of the run in `folder`.

    Args:
        part: which part.
        folder: where its configuration and its log are.
        trainer: more than one rank are started, and started again when one is lost, by torchrun.
        scratch: folder of this user's alone in which ranks meet; they make one without.
    """
    own = ["ptychoflow", COMMAND_OF_PART[part], "--config", str(folder.config)]
    if part is Part.DASHBOARD:
        own.append("--no-hub")
    command, processes, environment = [sys.executable, "-m", *own], 1, {}
    if part is Part.TRAINER and trainer.ranks > 1:
        processes = trainer.ranks
        command = torchrun(*own, ranks=processes, restarts=trainer.restarts)
        environment = {} if scratch is None else {SCRATCH_VARIABLE: str(scratch)}
    return PartCommand(part, command, folder.log(part), environment | share_of_threads(processes))
