"""The whole experiment: cases, results, table, plots."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any

from ptychoflow.acquisition.classification.image_folder import read_image_folder
from ptychoflow.acquisition.classification.tasks import deal_classes
from ptychoflow.workflow.experiments.classification.cases import Case, all_cases
from ptychoflow.workflow.experiments.classification.plots import write_plots
from ptychoflow.workflow.experiments.classification.results import Results
from ptychoflow.workflow.experiments.classification.running import run_cases, was_restarted
from ptychoflow.workflow.experiments.classification.settings import ClassificationExperiment
from ptychoflow.workflow.experiments.classification.table import tell

log = logging.getLogger(__name__)


def run_experiment(config: ClassificationExperiment, *, preset: str, json_file: Path | None, resume: bool) -> Results:
    """Run what is not done yet, print a table, draw plots beside the JSON file; blocks.

    Checkpoints stand beside the JSON file until their training is done; without a file there are none.

    Raises:
        UserError: data, sizes or a model that cannot be used, or a file that cannot be written.
    """
    classes = len(read_image_folder(config.images.folder).classes)
    deal_classes(classes, tasks=config.images.tasks, seed=0)
    results = Results(config, preset=preset, classes=classes, file=json_file)
    leads = int(os.environ.get("RANK", "0")) == 0
    checkpoints = json_file.with_name(f"{json_file.stem}-checkpoints") if json_file is not None else None
    if resume or (was_restarted() and json_file is not None and json_file.exists()):
        results.resume()
    elif leads:
        _begin(results, checkpoints)
    cases = [case for case in all_cases(config) if results.lacks(case)]
    log.info("%d trainings to run", len(cases))

    def keep(case: Case, found: dict[str, Any]) -> None:
        results.add(case, found)
        if checkpoints is not None:
            shutil.rmtree(checkpoints / case.name, ignore_errors=True)

    run_cases(config, cases, keep, checkpoints=checkpoints)
    if leads:
        if checkpoints is not None:
            shutil.rmtree(checkpoints, ignore_errors=True)
        tell(results.content)
        if json_file is not None:
            for path in write_plots(results.content, json_file.parent, stem=json_file.stem):
                log.info("drawn: %s", path)
    return results


def _begin(results: Results, checkpoints: Path | None) -> None:
    """Write the empty results, from which an experiment that is killed can go on, and forget earlier checkpoints."""
    if checkpoints is not None:
        shutil.rmtree(checkpoints, ignore_errors=True)
    results.write()
