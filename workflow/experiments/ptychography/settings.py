"""Configuration of the experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from ptychoflow.acquisition.retrieval.settings import RetrievalSettings
from ptychoflow.acquisition.source_settings import HoldOut, ReplaySettings, RoleSettings, SimulationSettings
from ptychoflow.streaming.messages import GroundTruthSource
from ptychoflow.streaming.settings import Settings
from ptychoflow.trainer.pipelines.ptychography.settings import TrainerSettings
from ptychoflow.workflow.experiments.methods import Method


class TrainingSetSettings(Settings):
    """A folder of NumPy files, one sub-folder per scan.

    `train/SCAN/cropped_exp_diffr_data.npy` holds frames (n, y, x), `patched_psi.npy` beside it complex patches
    (n, y, x). Scans are taken in the order of their names, each as one perspective. Such a folder has no positions:
    the held-out perspective cannot be stitched.
    """

    kind: Literal["training_set"] = "training_set"
    path: Path
    """The folder that holds `train`."""


ExperimentSource = Annotated[SimulationSettings | ReplaySettings | TrainingSetSettings, Field(discriminator="kind")]


class LaterScan(Settings):
    """A scan that is learnt after the first one; nothing of it is held out."""

    source: SimulationSettings
    """Its frames have the shape and dtype of the first scan's."""
    retrieval: RetrievalSettings = RetrievalSettings(source=GroundTruthSource.SIMULATED)
    """Where its ground truth comes from; patches have the shape of the first scan's."""


class FromScratchSettings(Settings):
    """When training on everything has converged."""

    max_epochs: PositiveInt = 30
    """Passes over all perspectives together at most."""
    patience: PositiveInt = 3
    """Epochs without a better validation loss that end it."""
    least_gain: PositiveFloat = 0.01
    """A validation loss is better if it is lower by this share."""


class EarlierScan(Settings):
    """A scan that was learnt before the experiment: what the network learnt there is where every method begins.

    So it is at a beamline, where a network is kept from one user to the next.
    """

    source: SimulationSettings
    """Its frames have the shape and dtype of the first scan's."""
    retrieval: RetrievalSettings = RetrievalSettings(source=GroundTruthSource.SIMULATED)
    """Where its ground truth comes from; patches have the shape of the first scan's."""
    until: FromScratchSettings = Field(default_factory=FromScratchSettings)
    """How long it is learnt, shuffled."""


class ComparisonSettings(Settings):
    """The `[experiment]` section."""

    methods: tuple[Method, ...] = (Method.INCREMENTAL, Method.ER, Method.DERPP, Method.FROM_SCRATCH)
    """What is compared."""
    first_seed: NonNegativeInt = 0
    """Of the first repetition. Choose settings on other seeds than those whose results you report."""
    seeds: PositiveInt = 1
    """Repetitions; each has its own specimens, noise, validation frames and initial weights, the same for all methods.
    """
    passes: PositiveInt = 1
    """How often the frames of a perspective come, in their order, before the next perspective does."""
    labelled_one_in: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1,)
    """Every method is trained with each of these: one perspective in so many has ground truth, the first one always.
    While the others pass, the past is rehearsed, in as many steps as they would have."""
    warm_start_epochs: tuple[PositiveInt, ...] = ()
    """In the end phase retrieval of the held-out perspective starts from what the method makes of it, and from nothing,
    and is compared after these numbers of epochs, in rising order; none leaves it out."""
    from_scratch: FromScratchSettings = Field(default_factory=FromScratchSettings)
    """When training on everything has converged."""
    validation_frames: PositiveInt | None = None
    """Validation frames of each perspective that losses are measured on, spread evenly over them; None takes all."""
    checkpoint_every: PositiveInt = 1
    """Perspectives from one checkpoint to the next; each holds the whole buffer."""
    max_restarts: Annotated[int, Field(ge=0)] = 2
    """How often the ranks of a training are started again from its last checkpoint after one of them was killed."""

    @field_validator("warm_start_epochs")
    @classmethod
    def _rising(cls, epochs: tuple[int, ...]) -> tuple[int, ...]:
        if list(epochs) != sorted(set(epochs)):
            raise ValueError("numbers must rise from one to the next")
        return epochs

    @property
    def all_seeds(self) -> range:
        """Return the seed of every repetition."""
        return range(self.first_seed, self.first_seed + self.seeds)


class PtychographyExperiment(Settings):
    """Everything that the experiment needs to know."""

    source: ExperimentSource
    """The scan: simulated, recorded, or a folder of training samples."""
    later: tuple[LaterScan, ...] = ()
    """Scans that follow it."""
    earlier: EarlierScan | None = None
    """A scan that was learnt before; without it and `trainer.init_weights`, training begins at random weights."""
    roles: RoleSettings = RoleSettings(hold_out=HoldOut.LAST_PERSPECTIVE)
    """What of the first scan is kept for validation and what is held out."""
    retrieval: RetrievalSettings = Field(default_factory=RetrievalSettings)
    """Where ground truth comes from."""
    trainer: TrainerSettings = Field(default_factory=TrainerSettings)
    """Model, sizes, buffer, schedule; `strategy` is set by the experiment, `ranks` are its processes."""
    experiment: ComparisonSettings = Field(default_factory=ComparisonSettings)
    """What is compared, and how often."""

    @property
    def retrievals(self) -> list[RetrievalSettings]:
        """How the ground truth of all scans is found; a folder of training samples brings its own."""
        first = [] if isinstance(self.source, TrainingSetSettings) else [self.retrieval]
        before = [] if self.earlier is None else [self.earlier.retrieval]
        return [*first, *before, *(later.retrieval for later in self.later)]

    def like_first(self, retrieval: RetrievalSettings) -> RetrievalSettings:
        """Return how the truth of another scan is found, with patches of the first scan's shape."""
        return retrieval.model_copy(update={"target_shape_px": self.retrieval.target_shape_px})

    @property
    def nothing_held_out(self) -> RoleSettings:
        """What the frames of other scans are used for."""
        return self.roles.model_copy(update={"hold_out": HoldOut.NONE})

    @model_validator(mode="after")
    def _losses_can_be_measured(self) -> Self:
        if self.roles.validation_fraction == 0:
            raise ValueError("roles.validation_fraction must be above 0: losses are measured on these frames")
        return self

    @model_validator(mode="after")
    def _one_beginning(self) -> Self:
        if self.earlier is not None and self.trainer.init_weights is not None:
            raise ValueError("earlier and trainer.init_weights both say where training begins; give one of them")
        return self

    @model_validator(mode="after")
    def _remembers_as_many(self) -> Self:
        if Method.MEMORISER_BUFFER in self.experiment.methods and self.trainer.buffer.capacity_bytes > 0:
            raise ValueError(
                "memoriser_buffer remembers as many frames as the buffer has items, and a buffer of so many bytes has "
                "others with each strategy: set trainer.buffer.capacity in place of trainer.buffer.capacity_bytes"
            )
        return self
