"""The whole experiment: cases, results, table, plots."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from acquisition.images.image_folder import read_image_folder
from acquisition.images.tasks import deal_classes
from workflow.experiments.imagenet.cases import all_cases
from workflow.experiments.imagenet.plots import write_plots
from workflow.experiments.imagenet.results import Results
from workflow.experiments.imagenet.running import run_cases
from workflow.experiments.imagenet.settings import ImageExperiment
from workflow.experiments.imagenet.table import tell

log = logging.getLogger(__name__)


def run_experiment(config: ImageExperiment, *, preset: str, json_file: Path | None, resume: bool) -> Results:
    """Run what is not done yet, print a table, draw plots beside the JSON file; blocks.

    Raises:
        UserError: data, sizes or a model that cannot be used, or a file that cannot be written.
    """
    classes = len(read_image_folder(config.images.folder).classes)
    deal_classes(classes, tasks=config.images.tasks, seed=0)
    results = Results(config, preset=preset, classes=classes, file=json_file)
    if resume:
        results.resume()
    cases = [case for case in all_cases(config) if results.lacks(case)]
    log.info("%d trainings to run", len(cases))
    run_cases(config, cases, results.add)
    if int(os.environ.get("RANK", "0")) == 0:
        tell(results.content)
        if json_file is not None:
            for path in write_plots(results.content, json_file.parent, stem=json_file.stem):
                log.info("drawn: %s", path)
    return results
