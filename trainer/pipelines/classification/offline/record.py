"""What has come of a training so far: its result in the end, and until then where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from ptychoflow.trainer.checkpoints.state_file import State
from ptychoflow.trainer.pipelines.classification.offline.evaluation import Accuracy


@dataclass(frozen=True)
class EpochResult:
    """How good the network was after an epoch."""

    task: int
    epoch: int
    """Within the task, from 0."""
    seconds: float
    """Of training since the first task's beginning; evaluation and checkpoints are left out."""
    average_top1: float
    """Over the tasks seen so far (eq. 5.1)."""
    average_top5: float


@dataclass
class TrainingRecord:
    """What came of training on all tasks; the same on all ranks, apart from times."""

    untrained: Accuracy
    """Of the network before it has learnt anything, on every task."""
    starts: list[int] = field(default_factory=list)
    """Number of ranks when it began, and again of those that went on from a checkpoint, each time that happened."""
    after_task: list[Accuracy] = field(default_factory=list)
    """On every task."""
    epochs: list[EpochResult] = field(default_factory=list)
    seconds: float = 0.0
    """Of training; evaluation, checkpoints, and what was lost with a killed rank, are left out."""
    steps: int = 0
    samples: int = 0
    """Trained on by all ranks, representatives included."""
    skipped_steps: int = 0
    corrupt: int = 0
    """Files that could not be read, for training or for validation."""
    breakdown_ms: dict[str, float] = field(default_factory=dict)
    """Mean of a step."""
    buffer: dict[str, Any] | None = None
    """Capacity and share of the background work that was hidden; None without a buffer."""

    def state(self) -> State:
        """Return what is known while tasks are being learnt, as plain values."""
        return {
            "untrained": asdict(self.untrained),
            "starts": self.starts,
            "after_task": [asdict(accuracy) for accuracy in self.after_task],
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "seconds": self.seconds,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the record that `state` described."""
        return cls(
            untrained=Accuracy(**state["untrained"]),
            starts=list(state["starts"]),
            after_task=[Accuracy(**accuracy) for accuracy in state["after_task"]],
            epochs=[EpochResult(**epoch) for epoch in state["epochs"]],
            seconds=state["seconds"],
        )
