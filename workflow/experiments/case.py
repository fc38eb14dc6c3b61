"""One training of an experiment: what its ranks are told, and the folder through which they tell what came of it."""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from pydantic import NonNegativeInt, PositiveInt

from ptychoflow.streaming.codec import UNREADABLE
from ptychoflow.streaming.durable_file import make_folder_durably, write_durably
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.settings import Settings
from ptychoflow.trainer.settings import LearningSettings
from ptychoflow.workflow.experiments.methods import Method

ADVICE = "remove the folder of this training to have it done again"
CASE = "case.json"
_PROGRESS = msgspec.json.Decoder(tuple[int, int | None])

STRATEGIES = "strategies"
"""The part of the results in which methods are compared."""


class Case(Settings, ABC):
    """A method with a seed, and in a pipeline's own class everything that it is trained with."""

    method: Method
    seed: NonNegativeInt
    ranks: PositiveInt
    """Data-parallel processes."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Tells this case from all others of its experiment; names its folder."""

    @property
    @abstractmethod
    def learning(self) -> LearningSettings:
        """Device, precision and threads of its ranks."""

    @property
    def place(self) -> tuple[str, str]:
        """Where its figures belong: a part of the results, and a key in that part."""
        return STRATEGIES, self.method.value

    @property
    def processes(self) -> int:
        """How many are started."""
        return self.ranks

    @property
    def together(self) -> str:
        """Cases of which this is the same are trained by the same processes, one after the other."""
        return self.name

    def parameters(self) -> dict[str, Any]:
        """Return plain JSON values that its figures stand beside."""
        return {"seed": self.seed}

    def identity(self) -> dict[str, Any]:
        """Return those of its parameters that tell it from all others at its place of the results."""
        return self.parameters()


@dataclass(frozen=True)
class CaseFolder:
    """The folder of one case."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """What the ranks go on from; gone when the training is done."""
        return self.path / "checkpoints"

    @property
    def _case(self) -> Path:
        return self.path / CASE

    @property
    def _figures(self) -> Path:
        return self.path / "result.json"

    @property
    def _progress(self) -> Path:
        return self.path / "progress.json"

    def begin(self, case: Case) -> None:
        """Tell the ranks what to train, unless that is done: then what it was trained with stays. Raises OSError."""
        if self._figures.is_file():
            return
        make_folder_durably(self.path)
        write_durably(self._case, case.model_dump_json(indent=2))

    def case(self, kind: type[Case]) -> Case:
        """Return what `begin` was told.

        Raises:
            UserError: the file is damaged, or of another version.
        """
        try:
            return kind.model_validate_json(self._case.read_bytes())
        except (OSError, ValueError) as error:
            raise UserError(f"{self._case} is damaged, or of another version; {ADVICE}") from error

    def figures(self) -> dict[str, Any] | None:
        """Return what came of the training, or None if it is not done.

        Raises:
            UserError: the file is damaged.
        """
        if not self._figures.is_file():
            return None
        try:
            found = json.loads(self._figures.read_bytes())
        except (ValueError, RecursionError) as error:
            raise UserError(f"{self._figures} is damaged: {error}; {ADVICE}") from error
        if not isinstance(found, dict):
            raise UserError(f"{self._figures} is damaged: it holds no figures; {ADVICE}")
        return found

    def finish(self, figures: dict[str, Any]) -> None:
        """Note that the training is done, and what came of it. Raises OSError."""
        write_durably(self._figures, json.dumps(figures, allow_nan=False))

    def note_progress(self, done: int, total: int | None) -> None:
        """Note how far the training is, and how far it goes if that is known; not worth waiting for the disk."""
        self._progress.write_text(json.dumps([done, total]))

    def progress(self) -> tuple[int, int | None]:
        """Return what was noted last."""
        try:
            done, total = _PROGRESS.decode(self._progress.read_bytes())
        except (OSError, *UNREADABLE):  # not there yet, or being written
            return 0, None
        return done, total

    @staticmethod
    def remove_all(experiment: Path) -> None:
        """Remove the folders of all cases in the folder of an experiment, asked for or not."""
        for case in experiment.glob(f"*/{CASE}"):
            shutil.rmtree(case.parent, ignore_errors=True)

    def clear(self) -> None:
        """Remove what only a training under way needs."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)
        self._progress.unlink(missing_ok=True)
