"""What a pipeline brings to be compared: its cases, what they need, and how their figures are shown."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from ptychoflow.workflow.configuration.pipeline_name import PipelineName
from ptychoflow.workflow.experiments.case import Case, CaseFolder
from ptychoflow.workflow.experiments.table import ResultTable

Content = dict[str, Any]


class Experiment(ABC):
    """One configured experiment of a pipeline."""

    pipeline: ClassVar[PipelineName]
    otherwise: ClassVar[str]
    """What a user can do who is told that the results are of another configuration."""
    folder: Path
    """Holds a folder for each case."""
    goes_on: str
    """How a training can go on whose ranks were killed more often than `max_restarts`."""
    max_restarts: int
    """How often torchrun starts the ranks of a training again after one of them was killed."""

    def folder_of(self, case: Case) -> CaseFolder:
        """Return the folder of a case."""
        return CaseFolder(self.folder / case.name)

    @abstractmethod
    def head(self) -> Content:
        """Return what the results begin with; its key `configuration` holds what must be the same to go on."""

    @abstractmethod
    def cases(self) -> Sequence[Case]:
        """Return all trainings, in their order."""

    def check(self, cases: Sequence[Case]) -> None:
        """See whether cases can be prepared and trained, before anything of them is done; blocks for seconds.

        Raises:
            UserError: a source that cannot be used, or a network or buffer that does not fit it.
        """

    def prepare(self, case: Case) -> None:
        """Make what a case is trained on, unless it is there; blocks.

        Raises:
            UserError: a source that cannot be used, or a full disk.
        """

    def complete(self, case: Case, figures: dict[str, Any]) -> dict[str, Any]:
        """Return the figures of a training that is done with those that its ranks could not find; may block.

        Raises:
            UserError: what the training left cannot be used.
        """
        return figures

    @abstractmethod
    def conclude(self, content: Content) -> Content:
        """Return what follows from all figures so far; part of the results."""

    @abstractmethod
    def table(self, content: Content) -> ResultTable:
        """Return the results for people."""

    @abstractmethod
    def draw(self, content: Content) -> list[Path]:
        """Draw what the results allow as PNG, and return the files.

        Raises:
            UserError: a file cannot be written.
        """
