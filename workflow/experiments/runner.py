"""Runs the cases of an experiment on ranks that torchrun starts, until all are in the results."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Sequence
from pathlib import Path

from ptychoflow.streaming.durable_file import make_folder_durably
from ptychoflow.streaming.errors import UserError, writing
from ptychoflow.streaming.events import Part
from ptychoflow.workflow.experiments.case import Case, CaseFolder
from ptychoflow.workflow.experiments.experiment import Experiment
from ptychoflow.workflow.experiments.results import Results
from ptychoflow.workflow.experiments.table import ResultTable
from ptychoflow.workflow.launching.supervision import PartCommand, Supervisor
from ptychoflow.workflow.launching.torchrun import share_of_threads, torchrun, under_torchrun
from ptychoflow.workflow.logs import last_words, stderr_console
from ptychoflow.workflow.progress_bar import ProgressBar

log = logging.getLogger(__name__)

LOG, FAILURE = "training.log", "failure-{}.txt"
"""In the experiment's folder: what torchrun and the ranks say, and a user's mistake that a rank has found."""
RANK_MODULE = "ptychoflow.workflow.experiments.rank"
KILLED = re.compile(rb"failed \(exitcode: (-\d+)\) local_rank: (\d+)")
"""torchrun's words for a rank that was killed."""
POLL_S = 0.5


def run_experiment(experiment: Experiment, results: Results, *, resume: bool) -> ResultTable:
    """Run all cases that the results lack, draw what they allow, print and return their table.

    Blocks, from minutes to days.

    Args:
        experiment: what is run.
        results: gets every case as soon as it is done.
        resume: go on with the results that are in the file, and with the training that was under way.

    Raises:
        UserError: no training is asked for, a source, data, sizes or a model that cannot be used, results of another
            configuration, ranks that were killed too often, or a folder that cannot be written.
    """
    if under_torchrun():
        raise UserError("an experiment starts torchrun by itself: start it without, and set the number of its ranks")
    if not experiment.cases():
        raise UserError("no training is asked for: name methods in experiment.methods")
    with writing(f"the experiment's folder {experiment.folder}"):
        if resume:
            results.take_over()
        asked = {case.name: case for case in experiment.cases()}  # what is asked for twice is no second seed
        cases = [case for case in asked.values() if results.lacks(case)]
        if cases:
            experiment.check(cases)
        make_folder_durably(experiment.folder)
        if not resume:
            CaseFolder.remove_all(experiment.folder)
            results.begin()
        _run_cases(experiment, results, cases)
    table = experiment.table(results.content)
    table.print()
    for path in experiment.draw(results.content):
        log.info("drawn: %s", path)
    return table


def _run_cases(experiment: Experiment, results: Results, cases: Sequence[Case]) -> None:
    log.info("%d trainings to run", len(cases))
    for together in dict.fromkeys(case.together for case in cases):
        alike = [case for case in cases if case.together == together]
        for case in alike:
            experiment.prepare(case)
            experiment.folder_of(case).begin(case)
        _Ranks(experiment, results, alike).run()


class _Ranks:
    """The processes that train some cases one after the other; the cases are in their folders."""

    def __init__(self, experiment: Experiment, results: Results, cases: Sequence[Case]) -> None:
        self._experiment, self._results = experiment, results
        self._remaining = list(cases)
        self._log = experiment.folder / LOG
        self._log_read = self._log.stat().st_size if self._log.exists() else 0
        self._lost: list[str] = []

    def run(self) -> None:
        """Train what is not done; raise UserError if that cannot be."""
        self._take_up()  # what was done when this process was killed the last time
        if not self._remaining:
            return
        for earlier in self._failures():
            earlier.unlink()
        with Supervisor() as torchrun, ProgressBar(stderr_console()) as progress:
            torchrun.start(self._command())
            while torchrun.running and not self._failures():
                if self._remaining:
                    now = self._remaining[0]
                    progress.show(f"training {now.name}", *self._experiment.folder_of(now).progress())
                time.sleep(POLL_S)
                torchrun.ended()
                self._take_up()
                self._tell_losses()
        for failure in self._failures():
            raise UserError(failure.read_text(encoding="utf-8"))
        if self._remaining:
            unexpected = f"{last_words(self._log)} ({self._log})"
            reason = f"{self._lost[-1]}; {self._experiment.goes_on}" if self._lost else unexpected
            raise UserError(f"the training {self._remaining[0].name} failed: {reason}")

    def _failures(self) -> list[Path]:
        return list(self._experiment.folder.glob(FAILURE.format("*")))

    def _take_up(self) -> None:
        """Take what is done into the results."""
        while self._remaining:
            case = self._remaining[0]
            folder = self._experiment.folder_of(case)
            figures = folder.figures()
            if figures is None:
                return
            trained = folder.case(type(case))  # another number of ranks may be asked for by now
            self._results.add(trained, self._experiment.complete(case, figures))
            folder.clear()
            log.info("%s: done, trained for %.0f s", case.name, figures["seconds"])
            del self._remaining[0]

    def _tell_losses(self) -> None:
        """Tell of ranks that were killed since the last call."""
        with self._log.open("rb") as file:
            file.seek(self._log_read)
            lines = [line for line in file if line.endswith(b"\n")]
        self._log_read += sum(map(len, lines))
        for found in filter(None, map(KILLED.search, lines)):
            self._lost.append(f"rank {int(found[2])} of the experiment died with status {int(found[1])}")
            if len(self._lost) <= self._experiment.max_restarts:
                log.warning("%s; starting the ranks again, from the last checkpoint", self._lost[-1])

    def _command(self) -> PartCommand:
        processes = self._remaining[0].processes
        module = [RANK_MODULE, self._experiment.pipeline.value, str(self._experiment.folder)]
        names = [case.name for case in self._remaining]
        command = torchrun(*module, *names, ranks=processes, restarts=self._experiment.max_restarts)
        return PartCommand(Part.TRAINER, command, self._log, share_of_threads(processes))
