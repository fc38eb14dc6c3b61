"""The single trainings that an experiment on scans is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import PositiveInt

from ptychoflow.acquisition.retrieval.settings import RetrievalSettings
from ptychoflow.trainer.pipelines.ptychography.settings import TrainerSettings
from ptychoflow.trainer.settings import Pace
from ptychoflow.workflow.experiments.case import STRATEGIES, Case, CaseFolder
from ptychoflow.workflow.experiments.methods import Method
from ptychoflow.workflow.experiments.ptychography.dataset import Dataset, open_dataset, with_fewer_labels
from ptychoflow.workflow.experiments.ptychography.settings import (
    ComparisonSettings,
    EarlierScan,
    PtychographyExperiment,
)

EARLIER = "earlier"


class PtychographyCase(Case):
    """One method with one seed on the samples of a scan, or what was learnt before."""

    dataset: Path
    """Folder of the samples."""
    trainer: TrainerSettings
    """Model, sizes, buffer, schedule, initial weights."""
    comparison: ComparisonSettings
    """What all methods share."""
    retrieval: RetrievalSettings
    """How phase retrieval is done that may start from what was learnt."""
    labelled_one_in: PositiveInt = 1
    """One perspective in so many has ground truth."""
    earlier: bool = False
    """Whether it is the training on the scan before the experiment."""

    @property
    def name(self) -> str:
        """Method, share of ground truth, and seed."""
        share = f"-one-in-{self.labelled_one_in}" if self.labelled_one_in > 1 else ""
        return f"{EARLIER if self.earlier else self.method.value}{share}-seed-{self.seed}"

    @property
    def place(self) -> tuple[str, str]:
        """What was learnt before stands apart, and so does what was learnt with less ground truth."""
        if self.labelled_one_in > 1:
            return labelled_part(self.labelled_one_in), self.method.value
        return (EARLIER, self.method.value) if self.earlier else super().place

    def samples(self) -> Dataset:
        """Open the samples, with as much ground truth as this case may use."""
        return with_fewer_labels(open_dataset(self.dataset), self.labelled_one_in)

    @property
    def learning(self) -> TrainerSettings:
        """Return the trainer's settings for this method: one step per minibatch, nothing after the stream.

        While frames without ground truth pass, steps are made of representatives alone.
        """
        pace = Pace.STREAM if self.labelled_one_in == 1 else Pace.CONTINUOUS
        update: dict[str, Any] = {"strategy": self.method.strategy, "pace": pace, "finish_s": 0.0}
        if self.method is Method.ER_MORE:
            buffer = self.trainer.buffer
            update["buffer"] = buffer.model_copy(update={"representatives": 2 * buffer.representatives})
        return self.trainer.model_copy(update=update | {"batch_size": self._batch_size})

    @property
    def passes(self) -> float:
        """How often the frames of a perspective come."""
        return self.comparison.passes * self._batch_size / self.trainer.batch_size

    @property
    def _batch_size(self) -> int:
        """Samples of the stream per step and rank."""
        more = self.trainer.buffer.representatives if self.method is Method.INCREMENTAL_MORE else 0
        return self.trainer.batch_size + more


def labelled_part(one_in: int) -> str:
    """Return the part of the results where one perspective in so many has ground truth."""
    return STRATEGIES if one_in == 1 else f"labelled_one_in_{one_in}"


def weights_of(folder: CaseFolder) -> Path:
    """Return the file of the trained network."""
    return folder.path / "network.safetensors"


def start_of(folder: CaseFolder) -> Path:
    """Return the file of what phase retrieval may start from."""
    return folder.path / "start.npz"


def held_out_image_of(folder: CaseFolder) -> Path:
    """Return the file of the stitched held-out perspective."""
    return folder.path / "held_out.npz"


def all_cases(settings: PtychographyExperiment, folder: Path) -> list[PtychographyCase]:
    """Return all trainings, seed after seed; `folder` is the experiment's."""
    return [case for seed in settings.experiment.all_seeds for case in _cases(settings, seed, folder)]


def _cases(settings: PtychographyExperiment, seed: int, folder: Path) -> list[PtychographyCase]:
    trainer, before = settings.trainer, []
    if settings.earlier is not None:
        before = [_earlier_case(settings, settings.earlier, seed, folder)]
        weights = weights_of(CaseFolder(folder / before[0].name))
        trainer = trainer.model_copy(update={"init_weights": weights})
    compared = [
        PtychographyCase(
            method=method,
            seed=seed,
            ranks=trainer.ranks,
            dataset=folder / f"samples-seed-{seed}",
            trainer=trainer,
            comparison=settings.experiment,
            retrieval=settings.retrieval,
            labelled_one_in=one_in,
        )
        for one_in in settings.experiment.labelled_one_in
        for method in settings.experiment.methods
    ]
    return [*before, *compared]


def _earlier_case(settings: PtychographyExperiment, earlier: EarlierScan, seed: int, folder: Path) -> PtychographyCase:
    return PtychographyCase(
        method=Method.FROM_SCRATCH,
        seed=seed,
        ranks=settings.trainer.ranks,
        dataset=folder / f"samples-{EARLIER}-seed-{seed}",
        trainer=settings.trainer,
        comparison=settings.experiment.model_copy(update={"from_scratch": earlier.until, "warm_start_epochs": ()}),
        retrieval=settings.retrieval,
        earlier=True,
    )
