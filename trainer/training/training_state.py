"""What every training's checkpoint holds of its learner and its rehearsal buffer, and how both go on from one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch.distributed as dist

from ptychoflow.streaming.errors import UserError
from ptychoflow.trainer.checkpoints.checkpoint import Checkpoint
from ptychoflow.trainer.checkpoints.state_file import State
from ptychoflow.trainer.strategies.strategy import Strategy
from ptychoflow.trainer.training.learner import Learner

log = logging.getLogger(__name__)


def rank_state(learner: Learner[Any], strategy: Strategy) -> State:
    """Return what this rank alone has; waits for the buffer's background work."""
    buffer = strategy.buffer
    return {"learner": learner.rank_state(), "buffer": None if buffer is None else buffer.state_dict()}


def restore_training(
    checkpoint: Checkpoint, learner: Learner[Any], strategy: Strategy, *, rank: int, ranks: int
) -> tuple[State, Sequence[State]]:
    """Bring learner and buffer to where a checkpoint stood, and begin a draw; return it, for the rest. Collective.

    Args:
        checkpoint: the same on all ranks; it may have been written by another number of them.
        learner: a new one of the same network.
        strategy: a new one, whose buffer nothing was offered to.
        rank: this process.
        ranks: their number.

    Returns:
        What all ranks share, and what each rank had, in the order of the ranks that wrote it.

    Raises:
        UserError: a file is damaged, or the buffer's settings are others.
    """
    common, shards = checkpoint.common(), checkpoint.shards()
    learner.restore(common["learner"])
    if len(shards) == ranks:
        learner.restore_rank(shards[rank]["learner"])
    else:
        learner.restore_other_ranks([shard["learner"] for shard in shards])
    if strategy.buffer is not None:
        try:
            strategy.buffer.load_shards([shard["buffer"] for shard in shards])
        except ValueError as error:
            raise UserError(
                f"checkpoint {checkpoint.path} does not fit the buffer's settings: {str(error).rstrip('.')}; go on "
                "with the policy of that run, and with room for all that its buffer held, in items or in bytes"
            ) from error
        if dist.is_initialized():
            dist.barrier()  # a disk may let a rank load for longer than the others' buffers wait
        strategy.buffer.offer(None)  # so that the next step has representatives, of what all ranks hold
    log.info("training goes on from %s, written by %d ranks", checkpoint.path, len(shards))
    return common, shards
