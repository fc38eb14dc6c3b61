"""The experiment from its configuration to its results: datasets, then one training after the other, then the tables.

Everything that is done stays in the folder: called again with the same configuration, it goes on where it was, also in
the middle of a training that was killed.
"""

from __future__ import annotations

import logging
import subprocess
import time
from pathlib import Path
from typing import Any

import tomli_w

from ptychoflow.streaming.durable_file import make_folder_durably, write_durably
from ptychoflow.streaming.errors import UserError
from ptychoflow.trainer.pipelines.ptychography.settings import TrainerSettings
from ptychoflow.workflow.experiments.methods import Method
from ptychoflow.workflow.experiments.progress import TaskProgress
from ptychoflow.workflow.experiments.ptychography.case import Case, CaseSettings
from ptychoflow.workflow.experiments.ptychography.dataset import open_dataset
from ptychoflow.workflow.experiments.ptychography.preparation import prepare, prepare_earlier
from ptychoflow.workflow.experiments.ptychography.results import as_json
from ptychoflow.workflow.experiments.ptychography.settings import EarlierScan, PtychographyExperiment
from ptychoflow.workflow.experiments.ptychography.show import write_figures
from ptychoflow.workflow.experiments.ptychography.table import write_table
from ptychoflow.workflow.run_folder import write_json

log = logging.getLogger(__name__)

POLL_S = 0.5
CONFIG, RESULTS = "config.toml", "results.json"


def run_experiment(settings: PtychographyExperiment, *, preset: str, folder: Path) -> dict[str, Any]:
    """Prepare, train and compare; blocks, from minutes to days. Return what is also written to `results.json`.

    Raises:
        UserError: the folder holds another experiment, the source cannot be used, or a training failed.
    """
    _claim(folder, settings)
    for case in cases(settings, folder):
        if case.result() is None:
            _prepared(settings, case)
            if settings.earlier is not None:
                _learn_earlier(earlier_case(settings, settings.earlier, case.seed, folder), settings, first=case)
            _train(case)
    results = as_json(settings, cases(settings, folder), preset=preset)
    write_json(results, folder / RESULTS)
    write_table(results, folder)
    write_figures(results, cases(settings, folder), folder)
    return results


def cases(settings: PtychographyExperiment, folder: Path) -> list[Case]:
    """Return all trainings, seed after seed."""
    return [
        Case(
            folder / f"{method.value}-seed-{seed}",
            CaseSettings(
                method=method,
                seed=seed,
                dataset=folder / f"samples-seed-{seed}",
                trainer=_beginning(settings, seed, folder),
                comparison=settings.experiment,
            ),
        )
        for seed in range(settings.experiment.seeds)
        for method in settings.experiment.methods
    ]


def earlier_case(settings: PtychographyExperiment, earlier: EarlierScan, seed: int, folder: Path) -> Case:
    """Return the training on the scan that was learnt before."""
    comparison = settings.experiment.model_copy(update={"from_scratch": earlier.until})
    return Case(
        folder / f"earlier-seed-{seed}",
        CaseSettings(
            method=Method.FROM_SCRATCH,
            seed=seed,
            dataset=folder / f"samples-earlier-seed-{seed}",
            trainer=settings.trainer,
            comparison=comparison,
        ),
    )


def _beginning(settings: PtychographyExperiment, seed: int, folder: Path) -> TrainerSettings:
    """Return the trainer's settings with the weights at which every method of a seed begins."""
    if settings.earlier is None:
        return settings.trainer
    weights = earlier_case(settings, settings.earlier, seed, folder).weights
    return settings.trainer.model_copy(update={"init_weights": weights})


def _learn_earlier(case: Case, settings: PtychographyExperiment, *, first: Case) -> None:
    """Learn the scan before the experiment, unless that is done; `first`: a case of the same seed."""
    if settings.earlier is None or case.result() is not None:
        return
    prepare_earlier(settings, settings.earlier, seed=case.seed, folder=case.dataset)
    there, here = (open_dataset(one.dataset)[0].samples["diffraction"].shape[1:] for one in (case, first))
    if there != here:
        raise UserError(f"the earlier scan has frames of {there} px, this one of {here} px: set earlier.source")
    _train(case)


def _claim(folder: Path, settings: PtychographyExperiment) -> None:
    """Note the configuration, or find that it is the one noted; only what is compared and how often may be extended."""
    text = tomli_w.dumps(
        settings.model_dump(mode="json", exclude_none=True, exclude={"experiment": {"methods", "seeds"}})
    )
    path = folder / CONFIG
    try:
        make_folder_durably(folder)
        if not path.exists():
            write_durably(path, text)
        elif path.read_text(encoding="utf-8") != text:
            raise UserError(f"{folder} holds an experiment with other settings; choose another --out, or remove it")
    except OSError as error:
        raise UserError(f"cannot write the experiment's folder {folder}: {error.strerror}") from error


def _prepared(settings: PtychographyExperiment, case: Case) -> None:
    prepare(settings, seed=case.seed, folder=case.dataset)
    dataset = open_dataset(case.dataset)
    counts = [len(part.roles) for part in dataset]
    log.info("seed %d: %d perspectives, %d frames with ground truth", case.seed, len(counts), sum(counts))


def _train(case: Case) -> None:
    """Run the processes of one training to their end."""
    title = case.folder.name.replace("-seed-", ", seed ")
    started_s = time.monotonic()
    process = case.start()
    try:
        with TaskProgress(title) as progress:
            while process.poll() is None:
                done, total = case.progress()
                progress.show(done, total)
                _wait(process)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    if process.returncode != 0 or case.result() is None:
        raise UserError(f"the training {title} failed; its log ends: {case.last_words()}")
    log.info("%s: done in %.0f s", title, time.monotonic() - started_s)


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(POLL_S)
    except subprocess.TimeoutExpired:
        return
