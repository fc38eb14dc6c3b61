"""Checkpoints on disk for tests of what reads them."""

from pathlib import Path

from ptychoflow.trainer.checkpoints.checkpoint import COMMON, begin, complete, shard_name
from ptychoflow.trainer.checkpoints.state_file import State, write_state


def save(folder: Path, *, step: int, common: State, shard: State, keep: int) -> Path:
    """Write a checkpoint of one rank alone; blocks until it is complete. Return its folder."""
    unfinished = begin(folder, step)
    write_state(shard, unfinished / shard_name(0))
    write_state(common, unfinished / COMMON)
    return complete(unfinished, ranks=1, keep=keep)
