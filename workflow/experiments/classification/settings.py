"""Configuration of the experiment."""

from __future__ import annotations

from typing import Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from ptychoflow.streaming.settings import Settings
from ptychoflow.trainer.pipelines.classification.settings import ClassificationSettings, ImageSettings
from ptychoflow.workflow.experiments.methods import Method


class ComparisonSettings(Settings):
    """The `[experiment]` section."""

    methods: tuple[Method, ...] = (Method.INCREMENTAL, Method.ER, Method.DERPP, Method.FROM_SCRATCH)
    """What is compared."""
    seeds: PositiveInt = 3
    """Repetitions; each deals the classes anew, the same for all methods."""
    ranks: PositiveInt = 2
    """Data-parallel processes."""
    plain: bool = False
    """Also train with plain experience replay and DER++ in one process, with as many samples per step; not with
    `training.buffer.capacity_bytes` or `training.optimizer.accumulate`."""
    buffer_shares: tuple[PositiveFloat, ...] = ()
    """Also train `er` with these shares of the training set in the buffer; not with
    `training.buffer.capacity_bytes`."""
    representatives: tuple[PositiveInt, ...] = ()
    """Also train `er` with so many representatives per step and rank."""
    rank_counts: tuple[PositiveInt, ...] = ()
    """Also train `er` on so many ranks."""
    checkpoint_epochs: PositiveInt = 1
    """Write a checkpoint after so many epochs of a task, and after each task. It holds the whole buffer; two are kept.
    """
    max_restarts: NonNegativeInt = 2
    """How often the ranks are started again from the last checkpoint after one of them was killed."""
    compare_draws: bool = False
    """Also train `er` where every rank sees classes of its own, once with global draws and once with local ones."""

    @field_validator("methods")
    @classmethod
    def _made_for_images(cls, methods: tuple[Method, ...]) -> tuple[Method, ...]:
        for method in methods:
            if method.on_scans_only:
                raise ValueError(f"{method.value} is compared on scans only")
        return methods


class ClassificationExperiment(Settings):
    """Everything that the experiment needs to know."""

    images: ImageSettings = Field(default_factory=ImageSettings)
    """Data set and tasks."""
    training: ClassificationSettings = Field(default_factory=ClassificationSettings)
    """Network, sizes, buffer, schedule; `strategy` is set by the experiment."""
    experiment: ComparisonSettings = Field(default_factory=ComparisonSettings)
    """What is compared, and how often."""

    @model_validator(mode="after")
    def _compares_alike(self) -> Self:
        asked = self.experiment
        if self.training.buffer.capacity_bytes > 0 and (asked.plain or asked.buffer_shares):
            raise ValueError(
                "experiment.plain and experiment.buffer_shares count the items of a buffer: "
                "set training.buffer_share in place of training.buffer.capacity_bytes"
            )
        if self.training.optimizer.accumulate > 1 and asked.plain:
            raise ValueError("experiment.plain makes a step of every minibatch: set training.optimizer.accumulate to 1")
        if self.training.finish_s > 0:
            raise ValueError(
                "training.finish_s is time after the last task, in which only methods that rehearse learn: set it to 0"
            )
        return self
