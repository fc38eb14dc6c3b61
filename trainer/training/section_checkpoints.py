"""Checkpoints at the ends of sections, where all ranks stand still: written by all of them, and waited for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist

from ptychoflow.streaming.errors import writing
from ptychoflow.trainer.checkpoints.checkpoint import (
    COMMON,
    Checkpoint,
    begin,
    complete,
    newest,
    remove_unfinished,
    set_damaged_aside,
    shard_name,
)
from ptychoflow.trainer.checkpoints.state_file import State, write_state
from ptychoflow.trainer.device import Rank
from ptychoflow.trainer.strategies.strategy import Strategy
from ptychoflow.trainer.training.learner import Learner
from ptychoflow.trainer.training.training_state import rank_state, restore_training

KEEP = 2


@dataclass(frozen=True)
class SectionCheckpoints:
    """The checkpoints of one training. All ranks call its methods after the same step."""

    folder: Path
    """Seen by all ranks; made if need be."""
    rank: Rank
    every: int = 1
    """Perspectives, or epochs, from one checkpoint to the next; the end of a task always has one."""

    def newest(self) -> Checkpoint | None:
        """Return the newest complete one, if there is one; remove what a killed training has left unfinished."""
        if self.rank.rank == 0:
            remove_unfinished(self.folder)
            set_damaged_aside(self.folder)
        _meet()
        return newest(self.folder)

    def restore(self, found: Checkpoint, learner: Learner[Any], strategy: Strategy) -> tuple[State, Sequence[State]]:
        """Bring learner and buffer to where a checkpoint stood, as `restore_training` does."""
        return restore_training(found, learner, strategy, rank=self.rank.rank, ranks=self.rank.world_size)

    def save(self, step: int, learner: Learner[Any], strategy: Strategy, *, common: State, own: State) -> None:
        """Write a checkpoint; blocks until it is complete. The last two stay.

        Args:
            step: names it; larger than in the call before.
            learner: goes into it.
            strategy: its buffer goes into it.
            common: what all ranks share beside the learner; rank 0's is written.
            own: what this rank alone has beside learner and buffer.

        Raises:
            UserError: the disk does not take it; older checkpoints are untouched.
        """
        with writing(f"a checkpoint in {self.folder}"):
            unfinished = begin(self.folder, step)
            write_state({**rank_state(learner, strategy), **own}, unfinished / shard_name(self.rank.rank))
            if self.rank.rank == 0:
                write_state({"learner": learner.state(), **common}, unfinished / COMMON)
            _meet()
            if self.rank.rank == 0:
                complete(unfinished, ranks=self.rank.world_size, keep=KEEP)


def _meet() -> None:
    if dist.is_initialized():
        dist.barrier()
