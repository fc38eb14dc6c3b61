"""The results of an experiment as one JSON file, complete after every case, and what they must show."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from statistics import fmean
from typing import Any

from ptychoflow.streaming.errors import UserError
from ptychoflow.workflow.experiments.classification.cases import PLAIN, STRATEGIES, SWEEPS, Case
from ptychoflow.workflow.experiments.classification.settings import ClassificationExperiment
from ptychoflow.workflow.experiments.methods import Method
from ptychoflow.workflow.json_results import write_results

log = logging.getLogger(__name__)

Runs = list[dict[str, Any]]

REHEARSAL_GAIN = 3.0
"""Average top-1 of rehearsal over that of incremental training, at least."""
COST_ALLOWED = 1.1
"""Time of rehearsal over what its samples cost, at most."""


class Results:
    """Gathers cases; writes the file after each, so that an experiment can go on from it.

    Args:
        config: what is run.
        preset: its name.
        classes: of the data set.
        file: where results are kept; None keeps them in memory.
    """

    def __init__(self, config: ClassificationExperiment, *, preset: str, classes: int, file: Path | None) -> None:
        self._config, self._file = config, file
        self.content: dict[str, Any] = {
            "preset": preset,
            "classes": classes,
            "tasks": config.images.tasks,
            "configuration": config.model_dump(mode="json", exclude={"images": {"folder"}, "experiment": True}),
            STRATEGIES: {},
            PLAIN: {},
            "sweeps": {},
            "targets": [],
        }

    def resume(self) -> None:
        """Take over what the file holds.

        Raises:
            UserError: the file cannot be read or holds results of another configuration.
        """
        if self._file is None:
            raise UserError("--resume needs --json FILE, the results to go on from")
        try:
            earlier = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{self._file} cannot be read: {error}") from error
        names = ("classes", "tasks", "configuration")
        if any(earlier.get(name) != json.loads(json.dumps(self.content[name])) for name in names):
            raise UserError(
                f"{self._file} holds results of another configuration; name another file, or leave out --resume"
            )
        for name in (STRATEGIES, PLAIN, "sweeps"):
            self.content[name] = earlier[name]
        self.content["targets"] = targets(self.content, self._config)

    def lacks(self, case: Case) -> bool:
        """Whether the case has not been run."""
        wanted = case.parameters()
        group, name = self._place(case)
        return not any(wanted.items() <= run.items() for run in group.get(name, []))

    def add(self, case: Case, figures: dict[str, Any]) -> None:
        """Take in a case.

        Raises:
            UserError: the file cannot be written.
        """
        group, name = self._place(case)
        group.setdefault(name, []).append(case.parameters() | figures)
        self.content["targets"] = targets(self.content, self._config)
        log.info(
            "%s %s seed %d: average top-1 %.4f, %.0f s",
            case.part,
            case.method,
            case.seed,
            figures["average_top1"],
            figures["seconds"],
        )
        self.write()

    def write(self) -> None:
        """Write the file, which is whole at any time.

        Raises:
            UserError: the file cannot be written.
        """
        write_results(self.content, self._file)

    def _place(self, case: Case) -> tuple[dict[str, Runs], str]:
        """Return the table that the case belongs into, and its key there."""
        if case.part in SWEEPS:
            return self.content["sweeps"], case.part
        return self.content[case.part], case.method.value


def targets(content: dict[str, Any], config: ClassificationExperiment) -> list[dict[str, Any]]:
    """Return what rehearsal must reach beside incremental training and beside its plain form, where both are there."""
    runs, plain = content[STRATEGIES], content[PLAIN]
    incremental = runs.get(Method.INCREMENTAL)
    made = []
    for method in (Method.ER, Method.DERPP):
        if method in runs and incremental:
            gain = _mean(runs[method], "average_top1") / _mean(incremental, "average_top1")
            made.append(_target(f"{method}_gain_over_incremental", gain, REHEARSAL_GAIN, direction="min"))
        if method in runs and method in plain:
            least = min(run["average_top1"] for run in plain[method])
            worst = min(_mean(runs[method], "average_top1"), max(run["average_top1"] for run in runs[method]))
            made.append(_target(f"{method}_mean_over_plain_least", worst / least, 1.0, direction="min"))
    if Method.ER in runs and incremental:
        training = config.training
        cost = (training.batch_size + training.buffer.representatives) / training.batch_size
        ratio = _mean(runs[Method.ER], "seconds") / _mean(incremental, "seconds")
        made.append(_target("er_time_over_cost_of_its_samples", ratio / cost, COST_ALLOWED, direction="max"))
    return made


def _target(name: str, value: float, target: float, *, direction: str) -> dict[str, Any]:
    met = value >= target if direction == "min" else value <= target
    return {"name": name, "value": value, "target": target, "direction": direction, "met": met}


def _mean(runs: Runs, name: str) -> float:
    return fmean(run[name] for run in runs)
