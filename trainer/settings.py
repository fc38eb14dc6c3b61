"""Configuration of the trainer, whatever is learnt."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ptychoflow.buffer.names import TransportName
from ptychoflow.streaming.device import Device
from ptychoflow.streaming.settings import Settings
from ptychoflow.trainer.models.precision import Precision


class StrategyName(StrEnum):
    """What each training step learns from."""

    INCREMENTAL = "incremental"
    """The stream alone, each sample once."""
    ER = "er"
    """The stream and representatives of the past from the rehearsal buffer."""
    DER = "der"
    """The same, the representatives by what the network made of them when they were learnt (dark experience replay)."""
    DERPP = "derpp"
    """The same, the representatives by that and by their ground truth (DER++)."""
    DERPP_TWO_DRAWS = "derpp_two_draws"
    """DER++ that draws twice as many: half with their outputs, half with their ground truth, as its authors draw."""
    XDER = "xder"
    """DER++ whose stored outputs are rewritten where the network has become better since."""

    @property
    def draws(self) -> int:
        """How many representatives a step asks for, as a multiple of the configured number."""
        return 2 if self is StrategyName.DERPP_TWO_DRAWS else 1


class Pace(StrEnum):
    """What happens while no minibatch of the stream is waiting."""

    STREAM = "stream"
    """One step per arriving minibatch; else wait."""
    CONTINUOUS = "continuous"
    """Train on draws from the buffer, so that no idle moment is wasted."""


class ScheduleKind(StrEnum):
    """How the learning rate moves with the step."""

    CONSTANT = "constant"
    CYCLIC = "cyclic"
    """Triangle waves whose height shrinks exponentially (`exp_range`; the thesis)."""


class ScheduleSettings(Settings):
    """Learning-rate schedule; its upper end is `learning_rate`."""

    kind: ScheduleKind = ScheduleKind.CONSTANT
    lower_rate: PositiveFloat = 1e-4
    """Lower end of the cycles."""
    half_cycle_steps: PositiveInt = 184
    """Steps from the lower to the upper end."""
    gamma: float = Field(default=0.996, gt=0, le=1)
    """The height of the cycles is multiplied by this at every step."""
    finish_hold: float = Field(default=0.5, ge=0, lt=1)
    """Training after the end of the stream keeps the rate for this share of its time, then lowers it linearly."""
    finish_fraction: float = Field(default=0.02, gt=0, le=1)
    """Share of the rate that is left at the end of that."""


class BufferSettings(Settings):
    """The rehearsal buffer; see `buffer.RehearsalBuffer`."""

    capacity: PositiveInt = 4000
    """Items over all ranks together."""
    capacity_bytes: NonNegativeInt = 0
    """Bytes that the stores of all ranks together may occupy, instead of a number of items; 0 counts items."""
    representatives: PositiveInt = 24
    """Items drawn per step and rank (r)."""
    candidates: PositiveInt = 14
    """Samples of each minibatch and rank that are offered for storage (c)."""
    rehearse_from_items: NonNegativeInt = 0
    """Representatives are used once the ranks store so many items, no more than they have room for; until then the
    buffer only fills."""
    policy: Literal["random", "reservoir", "balanced_reservoir", "fifo"] = "random"
    """What a store that is full replaces. Those of the buffer's policies that need no score or feature of each sample,
    which strategies do not give."""
    transport: TransportName = "auto"
    timeout_s: PositiveFloat = 30.0
    """A rank that does not answer a request for this long is given up: the others rehearse without what it stores."""


class Distance(StrEnum):
    """How far an output is from a stored one, element by element; the mean of it counts."""

    SQUARED = "squared"
    """The squared difference (the thesis)."""
    ABSOLUTE = "absolute"
    """The absolute difference, as errors against the ground truth of scans are measured."""
    HUBER = "huber"
    """Half the squared difference up to 0.1, from there on a straight line (Huber, Ann. Math. Stat. 35, 73, 1964)."""


class DistillationSettings(Settings):
    """What the strategies `der`, `derpp`, `derpp_two_draws` and `xder` weigh; the defaults are the thesis's."""

    distance: Distance = Distance.SQUARED
    alpha: PositiveFloat = Field(default=0.8, allow_inf_nan=False)
    """Weight of the mean distance between the outputs for representatives and their stored activations."""
    beta: NonNegativeFloat = Field(default=1.0, allow_inf_nan=False)
    """Weight of a representative's ground truth beside that of a sample of the stream; `der` has none."""


class OptimizerKind(StrEnum):
    """How gradients become steps."""

    ADAM = "adam"
    SGD = "sgd"
    """Stochastic gradient descent with momentum."""


class OptimizerSettings(Settings):
    """The optimiser; its rate is `learning_rate`."""

    kind: OptimizerKind = OptimizerKind.ADAM
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of `sgd`."""
    weight_decay: NonNegativeFloat = 0.0
    """Added to the gradient, times the weights."""
    accumulate: PositiveInt = 1
    """Minibatches whose gradients are averaged before a step; stands in for that many times the ranks. At the
    end of a stream, a step is made of fewer if there are no more; an experiment on images leaves those out."""


class LearningSettings(Settings):
    """What every pipeline's training is made of."""

    SECTION: ClassVar[str] = "trainer"
    """Where a user sets this."""
    strategy: StrategyName = StrategyName.ER
    pace: Pace = Pace.CONTINUOUS
    buffer: BufferSettings = Field(default_factory=BufferSettings)
    distillation: DistillationSettings = Field(default_factory=DistillationSettings)
    batch_size: PositiveInt = 16
    """Samples of the stream per step and rank (b)."""
    learning_rate: PositiveFloat = 1e-3
    optimizer: OptimizerSettings = Field(default_factory=OptimizerSettings)
    averaging: float = Field(default=0.98, ge=0, lt=1)
    """Decay per step of the moving average of the weights that is evaluated and published; 0 averages nothing."""
    finish_s: NonNegativeFloat = 60.0
    """Train on draws from the buffer for this long after the end of the stream."""
    device: Device = Device.AUTO
    """Where the network is trained."""
    first_gpu: NonNegativeInt = 0
    """A host's first rank uses this one of its GPUs, the others the following ones. Where there are fewer GPUs than
    ranks, these share them, and gradients travel through the host's memory."""
    precision: Precision = Precision.AUTO
    record_passes: bool = False
    """On a GPU, replay forward and backward passes as CUDA graphs. `ptychoflow bench gpu` says whether that gives the
    same and how much time it saves."""
    threads: NonNegativeInt = 0
    """CPU threads per rank; 0 shares the cores evenly between the ranks of this host. Threads that wait for each other
    spin for some tens of microseconds, then sleep; OMP_WAIT_POLICY and GOMP_SPINCOUNT in the environment change that.
    """


class CheckpointSettings(Settings):
    """What training can go on from after it was interrupted or killed."""

    enabled: bool = True
    """Without, the publisher forgets samples as soon as they are trained on, and what dies is lost."""
    every_s: PositiveFloat = 30.0
    """Write a checkpoint at least this often; another one follows the end of every perspective and of the training."""
    keep: PositiveInt = 3
    """Newest checkpoints that stay."""
    max_restarts: NonNegativeInt = 3
    """How often the ranks are started again from the newest one after any of them was killed."""


class StreamSettings(LearningSettings):
    """What the training on a running stream is made of, whatever it brings."""

    ranks: PositiveInt = 1
    """Data-parallel processes that the launcher starts."""
    schedule: ScheduleSettings = Field(default_factory=ScheduleSettings)
    publish_every_s: NonNegativeFloat = 5.0
    """Publish weights at least this often while training; 0 publishes at perspective ends only."""
    publish_every_steps: NonNegativeInt = 0
    """Publish every so many steps as well; 0 does not."""
    evaluation_frames: PositiveInt = 512
    """Validation frames per rank that an evaluation at the end of a perspective uses at most, spread evenly over the
    perspectives seen; four of each of these are used even where that makes more. The last evaluation uses all."""
    wait_until_served_s: NonNegativeFloat = 300.0
    """How long the final weights wait for every edge that has ever asked for weights; a minute at most where none has.
    One that is still loading or cut off then gets none."""
    init_weights: Path | None = None
    """Start from this weights file of an earlier run, or, of a scan, from a published `.pth` state dict."""
    checkpoint: CheckpointSettings = Field(default_factory=CheckpointSettings)
    queue_samples: PositiveInt = 4096
    """Samples waiting in memory per rank; beyond, nothing is received and the publisher spools."""

    @property
    def restarts(self) -> int:
        """How often the ranks are started again; never without checkpoints."""
        return self.checkpoint.max_restarts if self.checkpoint.enabled else 0

    @model_validator(mode="after")
    def _queue_holds_a_minibatch(self) -> Self:
        if self.queue_samples < 2 * self.batch_size:
            raise ValueError("queue_samples must be at least twice batch_size")
        return self
