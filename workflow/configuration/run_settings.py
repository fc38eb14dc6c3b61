"""The section `[run]`: the name, the folder and the seed of a run."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeInt

from ptychoflow.streaming.settings import RunContext, Settings
from ptychoflow.streaming.written_as import written_as

Name = Annotated[
    str,
    written_as(
        "[A-Za-z0-9][A-Za-z0-9._-]*",
        "use letters, digits, full stops, _ and - alone, and begin with a letter or a digit",
    ),
]


def timestamp_name() -> str:
    """Return a name made of the local date and time, to the second."""
    return datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")


class RunSettings(Settings):
    """What the parts of one run share."""

    name: Name = Field(default_factory=timestamp_name)
    """Name of the run's folder; the date and time unless given."""
    directory: Path = Path("runs")
    """Folder that holds the runs' folders."""
    seed: NonNegativeInt = 0
    """Seed of what the run chooses: validation frames, first weights, rehearsal. A simulated scan has `source.seed`,
    phase retrieval `retrieval.seed`."""

    def context(self) -> RunContext:
        """Return what every part of this run is given."""
        return RunContext(name=self.name, directory=self.directory / self.name, seed=self.seed)
