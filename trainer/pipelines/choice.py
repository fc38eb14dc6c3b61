"""Chooses the pipeline by the configuration; the stream must then be announced as one for it."""

from __future__ import annotations

from typing import Any, Protocol

from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.messages import ClassificationStart, ScanStart, StreamStart
from ptychoflow.trainer.device import Rank
from ptychoflow.trainer.interface.sample_format import SampleFormat
from ptychoflow.trainer.online.ingest import SampleIngest
from ptychoflow.trainer.online.recipe import Recipe
from ptychoflow.trainer.online.start import Announced
from ptychoflow.trainer.pipelines.classification.samples import ImageSamples
from ptychoflow.trainer.pipelines.classification.settings import ClassificationTrainerSettings
from ptychoflow.trainer.pipelines.ptychography.samples import FrameSamples
from ptychoflow.trainer.pipelines.ptychography.settings import TrainerSettings
from ptychoflow.trainer.settings import StreamSettings


class MakeRecipe(Protocol):
    """Makes the parts of the training on an announced stream."""

    def __call__(self, announced: Announced, *, ingest: SampleIngest, rank: Rank, seed: int) -> Recipe[Any]:
        """Return them.

        Raises:
            UserError: the stream is for another pipeline, or does not fit the settings.
        """


def format_of(start: StreamStart) -> SampleFormat:
    """Return the format of the samples that come after an announcement."""
    return FrameSamples(start) if isinstance(start, ScanStart) else ImageSamples(start)


def choose_pipeline(settings: StreamSettings) -> MakeRecipe:
    """Return what makes the recipe of the pipeline of these settings; loads the libraries of its networks (seconds)."""
    if isinstance(settings, ClassificationTrainerSettings):
        return _for_images(settings)
    if isinstance(settings, TrainerSettings):
        return _for_scans(settings)
    raise TypeError(f"no pipeline has settings of the type {type(settings).__name__}")


def _for_scans(settings: TrainerSettings) -> MakeRecipe:
    from ptychoflow.trainer.pipelines.ptychography.recipe import PtychographyRecipe  # noqa: PLC0415

    def make_recipe(announced: Announced, *, ingest: SampleIngest, rank: Rank, seed: int) -> Recipe[Any]:
        if not isinstance(announced.scan, ScanStart):
            raise _mismatch("images", "a scan")
        dtype = announced.frame_dtype
        return PtychographyRecipe(settings, announced.scan, ingest=ingest, rank=rank, seed=seed, frame_dtype=dtype)

    return make_recipe


def _for_images(settings: ClassificationTrainerSettings) -> MakeRecipe:
    from ptychoflow.trainer.pipelines.classification.recipe import ClassificationRecipe  # noqa: PLC0415

    def make_recipe(announced: Announced, *, ingest: SampleIngest, rank: Rank, seed: int) -> Recipe[Any]:
        if not isinstance(announced.scan, ClassificationStart):
            raise _mismatch("a scan", "images")
        return ClassificationRecipe(settings, announced.scan, ingest=ingest, rank=rank, seed=seed)

    return make_recipe


def _mismatch(came: str, expected: str) -> UserError:
    return UserError(f"{came} came, but this trainer is set up for {expected}; give all parts the same [source]")
