"""Strategies side by side on the same scan, perspective after perspective, as they are compared."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from ptychoflow.acquisition.retrieval.engines import check_installed
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.messages import FrameRole, GroundTruthSource
from ptychoflow.trainer.strategies.buffer_check import check_buffer
from ptychoflow.workflow.configuration.pipeline_name import PipelineName
from ptychoflow.workflow.experiments.case import STRATEGIES, Case
from ptychoflow.workflow.experiments.experiment import Content, Experiment
from ptychoflow.workflow.experiments.methods import Method
from ptychoflow.workflow.experiments.ptychography.case import (
    EARLIER,
    PtychographyCase,
    all_cases,
    held_out_image_of,
    labelled_part,
    start_of,
)
from ptychoflow.workflow.experiments.ptychography.checks import check_scans
from ptychoflow.workflow.experiments.ptychography.dataset import open_dataset
from ptychoflow.workflow.experiments.ptychography.plots import write_plots
from ptychoflow.workflow.experiments.ptychography.preparation import prepare, prepare_earlier
from ptychoflow.workflow.experiments.ptychography.settings import PtychographyExperiment
from ptychoflow.workflow.experiments.ptychography.warm_start import COLD, WARM, compare_starts, epochs_needed
from ptychoflow.workflow.experiments.table import UNKNOWN, Cell, ResultTable, Run, Runs, spread
from ptychoflow.workflow.launching.part_checks import require_gpus

log = logging.getLogger(__name__)

CHANNELS = ("amplitude", "phase")
LOSS = "validation loss"
RANKS = (("per_frame", "residual ranks frames"), ("per_perspective", "perspectives"))
BASELINES = (Method.INCREMENTAL, Method.INCREMENTAL_MORE, Method.ER, Method.MEMORISER_BUFFER)
"""What every method is compared with, seed by seed, if it is there."""
SCORES = (("psnr_db", "PSNR, dB", 2), ("ssim", "SSIM", 4))


class Ptychography(Experiment):
    """The trainings of a configuration.

    Args:
        settings: what is compared.
        folder: of the experiment; everything that is done stays in it.

    Raises:
        UserError: a buffer is too small for what is drawn of it, or phase retrieval is asked for that is not installed.
    """

    pipeline = PipelineName.PTYCHOGRAPHY
    otherwise = "choose another --out, or remove it"
    goes_on = "the same command goes on from the last checkpoint"

    def __init__(self, settings: PtychographyExperiment, *, folder: Path) -> None:
        self.folder, self._settings = folder, settings
        self.max_restarts = settings.experiment.max_restarts
        if settings.experiment.warm_start_epochs:
            check_installed(GroundTruthSource.PTYCHI)
        for retrieval in settings.retrievals:
            check_installed(retrieval.source)
        for case in self.cases():
            check_buffer(case.learning, ranks=case.ranks)

    def head(self) -> Content:
        """Return what the results begin with; what is compared, and how often, may be extended later."""
        may_be_extended = {"experiment": {"methods", "seeds", "labelled_one_in"}}
        return {
            "configuration": self._settings.model_dump(mode="json", exclude=may_be_extended),
            STRATEGIES: {},
            EARLIER: {},
            **{labelled_part(one_in): {} for one_in in self._settings.experiment.labelled_one_in},
        }

    def cases(self) -> list[PtychographyCase]:
        """Return all trainings, seed after seed."""
        return all_cases(self._settings, self.folder)

    def check(self, cases: Sequence[Case]) -> None:
        """Look at the scans, and at what is to learn them."""
        settings = self._settings
        require_gpus({"trainer.device": settings.trainer.device, "retrieval.device": settings.retrieval.device})
        check_scans(settings, cases)

    def prepare(self, case: Case) -> None:
        """Write the samples of a case."""
        if not isinstance(case, PtychographyCase):
            raise TypeError(f"{case.name} is no case of this experiment")
        scan = next(one for one in self.cases() if one.seed == case.seed and not one.earlier)
        prepare(self._settings, seed=case.seed, folder=scan.dataset)
        if case.earlier and self._settings.earlier is not None:
            prepare_earlier(self._settings, self._settings.earlier, seed=case.seed, folder=case.dataset)
        dataset = open_dataset(case.dataset)
        if not any(len(part.rows(FrameRole.VALIDATION)) for part in dataset):
            raise UserError(
                f"{case.name}: none of the frames that are not void became one for validation, on which losses are "
                "measured: raise roles.validation_fraction"
            )
        counts = [len(part.roles) for part in dataset]
        log.info("%s: %d perspectives, %d frames with ground truth", case.name, len(counts), sum(counts))

    def complete(self, case: Case, figures: dict[str, Any]) -> dict[str, Any]:
        """Compare phase retrieval that starts from what was learnt, if that is asked for."""
        epochs = self._settings.experiment.warm_start_epochs
        if not isinstance(case, PtychographyCase) or case.earlier or not epochs:
            return figures
        starts = compare_starts(case.samples(), start_of(self.folder_of(case)), case.retrieval, epochs)
        return figures | {"warm_start": starts}

    def conclude(self, content: Content) -> Content:
        """Return the scores of always predicting the mean training patch; all methods on a stream share them."""
        runs: dict[str, Runs] = next((content[part] for part in self._labelled(content).values()), {})
        streamed = [run for name, found in runs.items() if name != Method.FROM_SCRATCH for run in found]
        counted = streamed or [run for found in runs.values() for run in found]
        return {"constant": _constant(counted) if counted else None}

    def table(self, content: Content) -> ResultTable:
        """Return losses and scores after the last perspective."""
        runs: dict[str, Runs] = content[STRATEGIES]
        labelled = {
            (one_in, name): found
            for one_in, part in self._labelled(content).items()
            for name, found in content[part].items()
        }
        columns: dict[str, Cell] = {
            "before the first step": spread(_first_loss, 4),
            LOSS: spread(_final_loss, 4),
            "raw weights": spread(lambda run: run["raw_loss"], 4),
            "late mean": spread(lambda run: run["late_loss"], 4),
            **{
                f"against {base.value.replace('_', ' ')}": _against(runs.get(base.value, []))
                for base in BASELINES
                if base.value in runs
            },
            **self._columns_of_labels(labelled),
            **self._columns_of_starts(),
            "forgetting": spread(lambda run: run.get("forgetting"), 4),
            **{
                f"{channel} {heading}": spread(_held_out_score(name, channel), digits)
                for name, heading, digits in SCORES
                for channel in CHANNELS
            },
            **{heading: spread(_rank(name), 2) for name, heading in RANKS},
            "steps": spread(lambda run: run["steps"], 0),
            "seconds": spread(lambda run: run["seconds"], 0),
        }
        constant = _shown(content["constant"])
        return ResultTable(
            "held-out perspective, and validation loss over all perspectives after the last one",
            columns=columns,
            lines=[
                (name if one_in == 1 else f"{name}, 1 in {one_in}", found) for (one_in, name), found in labelled.items()
            ],
            baselines=[["constant prediction", *(constant.get(heading, "") for heading in columns)]],
        )

    def _labelled(self, content: Content) -> dict[int, str]:
        """Return the parts of the results by how few perspectives have ground truth."""
        parts = {one_in: labelled_part(one_in) for one_in in sorted(self._settings.experiment.labelled_one_in)}
        return {one_in: part for one_in, part in parts.items() if content.get(part)}

    def _columns_of_labels(self, labelled: Mapping[tuple[int, str], Runs]) -> dict[str, Cell]:
        if self._settings.experiment.labelled_one_in == (1,):
            return {}
        all_labels = {id(found): labelled.get((1, name), []) for (_, name), found in labelled.items()}
        return {
            "against all labels": lambda runs: _against(all_labels[id(runs)])(runs),
            "phase retrieval, s": spread(lambda run: run["ground_truth_s"], 0),
        }

    def _columns_of_starts(self) -> dict[str, Cell]:
        if not (epochs := self._settings.experiment.warm_start_epochs):
            return {}
        last = epochs[-1]
        return {
            f"epochs from it that explain as much as {last} from nothing": spread(
                lambda run: epochs_needed(run["warm_start"]) if run["warm_start"] else None, 1
            ),
            f"phase PSNR after {epochs[0]} from it, dB": spread(_start_score(0, WARM), 2),
            f"after {last}, dB": spread(_start_score(-1, WARM), 2),
            f"after {last} from nothing, dB": spread(_start_score(-1, COLD), 2),
        }

    def draw(self, content: Content) -> list[Path]:
        """Draw losses and held-out images into the experiment's folder."""
        images = {
            case.method: held_out_image_of(self.folder_of(case))
            for case in self.cases()
            if case.seed == self._settings.experiment.first_seed and case.place[0] == STRATEGIES
        }
        return write_plots(content, images, self.folder, labelled=self._labelled(content))


def _constant(runs: Sequence[Run]) -> dict[str, Any]:
    losses = [run["constant"]["validation_loss"] for run in runs]
    scores = [run["constant"]["held_out"] for run in runs if run["constant"]["held_out"]]
    found: dict[str, Any] = {"validation_loss": fmean(losses)}
    for name, _, _ in SCORES:
        found[name] = (
            {channel: fmean(score[name][channel] for score in scores) for channel in CHANNELS} if scores else None
        )
    return found


def _shown(constant: dict[str, Any]) -> dict[str, str]:
    """Return the cells of the constant prediction by their headings."""
    scores = {
        f"{channel} {heading}": f"{constant[name][channel]:.{digits}f}" if constant[name] else UNKNOWN
        for name, heading, digits in SCORES
        for channel in CHANNELS
    }
    return {LOSS: f"{constant['validation_loss']:.4f}", **scores}


def _first_loss(run: Run) -> float | None:
    """Return the loss of the network that all methods begin with; what only remembers has none."""
    return None if run["raw_loss"] is None else fmean(run["untrained"])


def _final_loss(run: Run) -> float:
    loss: float = run["validation_loss"][-1]
    return loss


def _held_out_score(name: str, channel: str) -> Any:
    return lambda run: run["held_out"][name][channel] if run["held_out"] else None


def _rank(name: str) -> Any:
    return lambda run: run["residual_ranks"][name] if run["residual_ranks"] else None


def _start_score(place: int, start: str) -> Callable[[Run], float | None]:
    def figure(run: Run) -> float | None:
        score = run["warm_start"][place][start]["psnr_db"] if run["warm_start"] else None
        return None if score is None else float(score["phase"])

    return figure


def _against(baseline: Runs) -> Cell:
    """Return what compares losses with the baseline's, seed by seed; its own line stays empty.

    Shown are mean and spread of the differences, and on how many seeds the loss is the lower one.
    """
    losses = {run["seed"]: _final_loss(run) for run in baseline}

    def cell(runs: Runs) -> str:
        if runs is baseline:
            return ""
        pairs = [_final_loss(run) / losses[run["seed"]] - 1 for run in runs if run["seed"] in losses]
        if not pairs:
            return UNKNOWN
        mean = f"{100 * fmean(pairs):+.1f} %"
        if len(pairs) == 1:
            return mean
        return f"{mean} ± {100 * stdev(pairs):.1f} ({sum(pair < 0 for pair in pairs)} of {len(pairs)} lower)"

    return cell
