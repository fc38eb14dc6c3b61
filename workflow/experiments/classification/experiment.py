"""Class-incremental learning on images, as it is compared."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from ptychoflow.acquisition.classification.image_folder import read_image_folder
from ptychoflow.acquisition.classification.tasks import deal_classes
from ptychoflow.streaming.errors import UserError
from ptychoflow.trainer.pipelines.classification.check import check_classifier, check_image_buffer
from ptychoflow.trainer.pipelines.classification.offline.dali_loader import require_dali
from ptychoflow.trainer.pipelines.classification.offline.epochs import Shards
from ptychoflow.trainer.pipelines.classification.settings import LoaderName
from ptychoflow.workflow.configuration.pipeline_name import PipelineName
from ptychoflow.workflow.experiments.case import STRATEGIES, Case
from ptychoflow.workflow.experiments.classification.buffer_room import require_room
from ptychoflow.workflow.experiments.classification.case import (
    BUFFER_SHARE,
    DRAWS,
    PLAIN,
    RANKS,
    REPRESENTATIVES,
    SWEEPS,
    ClassificationCase,
    all_cases,
)
from ptychoflow.workflow.experiments.classification.plots import write_plots
from ptychoflow.workflow.experiments.classification.settings import ClassificationExperiment
from ptychoflow.workflow.experiments.classification.targets import targets
from ptychoflow.workflow.experiments.experiment import Content, Experiment
from ptychoflow.workflow.experiments.table import ResultTable, Runs, spread
from ptychoflow.workflow.launching.part_checks import require_gpus

COLUMN_OF_SWEEP = {
    BUFFER_SHARE: "buffer_share",
    REPRESENTATIVES: "representatives",
    RANKS: "ranks",
    DRAWS: "transport",
}
"""What differs between the runs of a sweep."""


class Classification(Experiment):
    """The trainings of a configuration.

    Args:
        config: what is compared.
        folder: holds a folder for each case.
        json_file: gets the results; without one there are no checkpoints, and plots are drawn nowhere.

    Raises:
        UserError: the folder of images is not laid out as it should be, or has too few classes, or a buffer is too
            small for them.
    """

    pipeline = PipelineName.CLASSIFICATION
    otherwise = "name another file, or leave out --resume"

    def __init__(self, config: ClassificationExperiment, *, folder: Path, json_file: Path | None) -> None:
        self.folder, self._config, self._json_file = folder, config, json_file
        self._images = read_image_folder(config.images.folder)
        deal_classes(len(self._images.classes), tasks=config.images.tasks, seed=0)
        require_room(all_cases(config), training_set=len(self._images.train), classes=len(self._images.classes))
        self.max_restarts = config.experiment.max_restarts if json_file is not None else 0
        self.goes_on = (
            "--resume goes on from the last checkpoint"
            if json_file is not None
            else "with --json FILE it would go on from a checkpoint"
        )

    def head(self) -> Content:
        """Return what the results begin with."""
        return {
            "classes": len(self._images.classes),
            "tasks": self._config.images.tasks,
            "images": [len(self._images.train), len(self._images.val)],
            "file_names": self._images.fingerprint(),
            "configuration": self._config.model_dump(mode="json", exclude={"images": {"folder"}, "experiment": True}),
            STRATEGIES: {},
            PLAIN: {},
            SWEEPS: {},
        }

    def cases(self) -> list[ClassificationCase]:
        """Return all trainings, seed after seed."""
        return all_cases(self._config, checkpoints=self._json_file is not None)

    def check(self, cases: Sequence[Case]) -> None:
        """Look at the network and the loader, and at the buffers of all cases."""
        config, classes = self._config, len(self._images.classes)
        require_gpus({"training.device": config.training.device})
        if config.images.loader is LoaderName.DALI:
            require_dali()
        network = config.images.classifier(config.training.model, classes=classes)
        check_classifier(network)
        for case in cases:
            if isinstance(case, ClassificationCase) and case.part != PLAIN:
                self._require_steps(case)
                settings = case.own_training(training_set=len(self._images.train))
                check_image_buffer(settings, network, ranks=case.ranks)

    def _require_steps(self, case: ClassificationCase) -> None:
        """Raise `UserError` if more minibatches are averaged for a step than there are in all tasks together."""
        averaged = case.training.optimizer.accumulate
        if averaged == 1:
            return
        tasks = deal_classes(len(self._images.classes), tasks=case.images.tasks, seed=case.seed)
        shards = Shards(self._images.train, tasks, sharding=case.sharding, world_size=case.ranks, seed=case.seed)
        steps = [shards.steps_per_epoch([task], batch_size=case.training.batch_size) for task in range(len(tasks))]
        if (minibatches := case.training.epochs * sum(steps)) < averaged:
            raise UserError(
                f"training.optimizer.accumulate is {averaged}, but {case.ranks} ranks have {minibatches} minibatches "
                "in all tasks together, so that no step would be made: lower it, or training.batch_size"
            )

    def conclude(self, content: Content) -> Content:
        """Return the targets, and whether they are met."""
        return {"targets": targets(content, self._config)}

    def table(self, content: Content) -> ResultTable:
        """Return accuracies, forgetting and times after the last task."""
        lines: list[tuple[str, Runs]] = list(content[STRATEGIES].items())
        lines += [
            (f"{PLAIN} {method}, as on {ranks} ranks" if len(apart) > 1 else f"{PLAIN} {method}", found)
            for method, runs in content[PLAIN].items()
            for apart in [_by_ranks(runs)]
            for ranks, found in apart.items()
        ]
        for sweep, column in COLUMN_OF_SWEEP.items():
            runs = content[SWEEPS].get(sweep, [])
            lines += [
                (f"er, {column} {value}", [run for run in runs if run[column] == value])
                for value in dict.fromkeys(run[column] for run in runs)
            ]
        return ResultTable(
            "after the last task",
            columns={
                "seeds": lambda runs: str(len(runs)),
                "average top-1": spread(itemgetter("average_top1"), 3),
                "average top-5": spread(itemgetter("average_top5"), 3),
                "forgetting": spread(itemgetter("forgetting"), 3),
                "seconds": spread(itemgetter("seconds"), 3),
            },
            lines=lines,
            remarks=[
                *(
                    f"{method}: seeds were trained on {' and '.join(map(str, _by_ranks(runs)))} ranks"
                    for method, runs in content[STRATEGIES].items()
                    if len(_by_ranks(runs)) > 1
                ),
                *map(_verdict, content["targets"]),
            ],
        )

    def draw(self, content: Content) -> list[Path]:
        """Draw accuracies and times beside the JSON file."""
        if self._json_file is None:
            return []
        return write_plots(content, self._json_file.parent, stem=self._json_file.stem)


def _by_ranks(runs: Runs) -> dict[int, Runs]:
    """Return the runs of each number of ranks; a plain step has the samples of so many."""
    return {ranks: [run for run in runs if run["ranks"] == ranks] for ranks in dict.fromkeys(r["ranks"] for r in runs)}


def _verdict(target: dict[str, Any]) -> str:
    verdict = "met" if target["met"] else "missed"
    value = "undefined, nothing to compare with was right" if target["value"] is None else f"{target['value']:.3g}"
    return f"target {verdict}: {target['name']} = {value} ({target['direction']} {target['target']:g})"
