"""One training of the experiment, a method with a seed: what it needs, where its files are, and its processes."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import NonNegativeInt

from ptychoflow.streaming.durable_file import write_durably
from ptychoflow.streaming.settings import Settings
from ptychoflow.trainer.pipelines.ptychography.settings import TrainerSettings
from ptychoflow.trainer.settings import Pace
from ptychoflow.workflow.experiments.methods import Method
from ptychoflow.workflow.experiments.ptychography.settings import ComparisonSettings
from ptychoflow.workflow.run_folder import write_json

log = logging.getLogger(__name__)

CASE, RESULT, PROGRESS, LOG = "case.json", "result.json", "progress.json", "training.log"
WEIGHTS = "network.safetensors"


class CaseSettings(Settings):
    """What `case.json` holds."""

    method: Method
    seed: NonNegativeInt
    dataset: Path
    trainer: TrainerSettings
    comparison: ComparisonSettings


@dataclass(frozen=True)
class Case:
    """A training and its folder."""

    folder: Path
    settings: CaseSettings

    @property
    def method(self) -> Method:
        """What is trained."""
        return self.settings.method

    @property
    def seed(self) -> int:
        """Of the network's initial weights and the buffer's choices."""
        return self.settings.seed

    @property
    def dataset(self) -> Path:
        """Folder of the samples."""
        return self.settings.dataset

    @property
    def comparison(self) -> ComparisonSettings:
        """What all methods share."""
        return self.settings.comparison

    @property
    def held_out_image(self) -> Path:
        """The stitched held-out perspective."""
        return self.folder / "held_out.npz"

    @property
    def weights(self) -> Path:
        """The trained network."""
        return self.folder / WEIGHTS

    def trainer_settings(self) -> TrainerSettings:
        """Return the trainer's settings for this method: one step per minibatch, nothing after the stream."""
        return self.settings.trainer.model_copy(
            update={"strategy": self.method.strategy, "pace": Pace.STREAM, "finish_s": 0.0}
        )

    def result(self) -> dict[str, Any] | None:
        """Return what came of the training, or None if it is not done."""
        path = self.folder / RESULT
        found: dict[str, Any] | None = json.loads(path.read_text()) if path.is_file() else None
        return found

    def write_result(self, result: dict[str, Any]) -> None:
        """Note that the training is done, and what came of it."""
        write_json(result, self.folder / RESULT)

    def note_progress(self, steps: int, total: int | None) -> None:
        """Note how many steps have been made, and how many there are if that is known."""
        write_durably(self.folder / PROGRESS, json.dumps([steps, total]))

    def progress(self) -> tuple[int, int | None]:
        """Return what was noted last."""
        path = self.folder / PROGRESS
        steps, total = json.loads(path.read_text()) if path.is_file() else (0, None)
        return steps, total

    def start(self) -> subprocess.Popen[bytes]:
        """Start the ranks; torchrun starts them again if one of them is killed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.settings.model_dump(mode="json"), self.folder / CASE)
        ranks = self.settings.trainer.ranks
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            f"--nproc-per-node={ranks}",
            f"--max-restarts={self.comparison.max_restarts}",
            *("-m", "ptychoflow.workflow.experiments.ptychography.rank", str(self.folder)),
        ]
        log.debug("%s", " ".join(command))
        threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, len(os.sched_getaffinity(0)) // ranks))
        with (self.folder / LOG).open("ab") as output:
            return subprocess.Popen(  # noqa: S603  a fixed command
                command, stdout=output, stderr=output, env=os.environ | {"OMP_NUM_THREADS": threads}
            )

    def last_words(self, lines: int = 12) -> str:
        """Return the last error that a rank has logged, or the end of the log if there is none."""
        text = (self.folder / LOG).read_text(errors="replace").splitlines()
        errors = [line for line in text if " ERROR " in line]
        return errors[-1] if errors else "\n".join(text[-lines:])


def read_case(folder: Path) -> Case:
    """Return the case that `Case.start` wrote down."""
    return Case(folder, CaseSettings.model_validate_json((folder / CASE).read_bytes()))
