"""The results of an experiment as one JSON file, complete after every case."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from ptychoflow.streaming.errors import UserError
from ptychoflow.workflow.experiments.case import Case
from ptychoflow.workflow.experiments.experiment import Experiment
from ptychoflow.workflow.json_results import write_results

log = logging.getLogger(__name__)

ABOUT = ("configuration", "environment")
"""Sections of the results that hold no trainings."""


class Results:
    """Gathers the figures of cases; the file is written after each, so that an experiment can go on from it.

    Args:
        experiment: what is run.
        preset: its name.
        file: where results are kept; None keeps them in memory.
    """

    def __init__(self, experiment: Experiment, *, preset: str, file: Path | None) -> None:
        self.file = file
        self._experiment = experiment
        self.content: dict[str, Any] = {"preset": preset, **experiment.head()}

    @property
    def are_begun(self) -> bool:
        """Whether the file holds a training, or the experiment's folder any other file, which one is made from.

        What was refused at its source has left neither: its results may be overwritten.

        Raises:
            UserError: the file cannot be read.
        """
        if self.file is None or not self.file.exists():
            return False
        earlier = self._earlier(self.file)
        if any(isinstance(value, dict) and value for name, value in earlier.items() if name not in ABOUT):
            return True
        return any(path.is_file() and path != self.file for path in self._experiment.folder.rglob("*"))

    def begin(self) -> None:
        """Write the empty results, from which an experiment that is killed can go on.

        Raises:
            UserError: the file cannot be written.
        """
        write_results(self.content, self.file)

    def take_over(self) -> None:
        """Go on with what the file holds.

        Raises:
            UserError: the file cannot be read or holds results of another configuration.
        """
        if self.file is None:
            raise UserError("--resume needs --json FILE, the results to go on from")
        earlier = self._earlier(self.file)
        head = json.loads(json.dumps(self._experiment.head()))
        parts = {name for name, value in head.items() if value == {}}
        others = [name for name, value in head.items() if name not in parts and earlier.get(name) != value]
        if others:
            raise UserError(
                f"{self.file} holds results of another configuration, with other {', '.join(others)}; "
                f"{self._experiment.otherwise}"
            )
        self.content |= {name: earlier.get(name, {}) for name in parts}
        self._conclude()

    def lacks(self, case: Case) -> bool:
        """Whether the case has not been run."""
        part, key = case.place
        wanted = case.identity()
        return not any(wanted.items() <= run.items() for run in self.content.get(part, {}).get(key, []))

    def add(self, case: Case, figures: dict[str, Any]) -> None:
        """Take in a case.

        Raises:
            UserError: the file cannot be written.
        """
        part, key = case.place
        self.content.setdefault(part, {}).setdefault(key, []).append(case.parameters() | figures)
        self._conclude()
        write_results(self.content, self.file)

    @staticmethod
    def _earlier(file: Path) -> dict[str, Any]:
        try:
            earlier = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{file} cannot be read: {error}") from error
        if not isinstance(earlier, dict):
            raise UserError(f"{file} cannot be read: it holds no results")
        return earlier

    def _conclude(self) -> None:
        self.content |= self._experiment.conclude(self.content)
