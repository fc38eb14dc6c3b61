"""Writes one rank's part of each checkpoint in the background and learns when the checkpoint is complete."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from pathlib import Path

from ptychoflow.streaming.durable_file import UNFINISHED_SUFFIX, make_folder_durably, sync_names
from ptychoflow.trainer.checkpoints.checkpoint import (
    COMMON,
    VALIDATION,
    begin,
    checkpoint_name,
    complete,
    is_complete,
    is_later_begun,
    shard_name,
)
from ptychoflow.trainer.checkpoints.state_file import State, write_state

log = logging.getLogger(__name__)

POLL_S = 0.02
PATIENCE_S = 300.0
"""How long one rank waits for the others' parts; then this checkpoint never becomes complete."""


@dataclass(frozen=True)
class ValidationFile:
    """Samples that no checkpoint before held."""

    name: str
    samples: State


class NeverComplete(Exception):
    """The other ranks' parts did not come."""


class CheckpointWriter:
    """One rank's hand in the checkpoints of all; the ranks meet in `folder`, which all of them see.

    Args:
        folder: holds all checkpoints.
        rank: rank 0 also writes what all share, and declares the checkpoint complete.
        world_size: number of ranks.
        keep: complete checkpoints that stay.
        on_failure: called in the writing thread with the reason when a checkpoint could not be written.
    """

    def __init__(
        self, folder: Path, *, rank: int, world_size: int, keep: int, on_failure: Callable[[str], None]
    ) -> None:
        self._folder, self._rank, self._world_size, self._keep = folder, rank, world_size, keep
        self._on_failure = on_failure
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._last: Future[None] | None = None
        self._given_up = threading.Event()

    @property
    def idle(self) -> bool:
        """Whether nothing is being written."""
        return self._last is None or self._last.done()

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until what is being written is complete or has failed; None for as long as it takes."""
        if self._last is not None:
            wait_for([self._last], timeout_s)

    def write(
        self,
        step: int,
        *,
        shard: State,
        common: State | None,
        validation: ValidationFile | None = None,
        when_complete: Callable[[], None],
    ) -> None:
        """Write this rank's part of the checkpoint of a step; returns at once, but for what is still being written.

        Args:
            step: the same on all ranks, and larger than in the call before.
            shard: tensors on the CPU that nobody changes any more.
            common: likewise; from rank 0 alone.
            validation: likewise, to be written before the shard, which names it.
            when_complete: called in the writing thread once all ranks' parts are on the disk.
        """
        if self._last is not None:
            self._last.result()
        self._last = self._executor.submit(self._write, step, shard, common, validation, when_complete)

    def close(self) -> None:
        """Stop waiting for the other ranks; what this one has begun to write it finishes."""
        self._given_up.set()
        self._executor.shutdown()

    def _write(
        self,
        step: int,
        shard: State,
        common: State | None,
        validation: ValidationFile | None,
        when_complete: Callable[[], None],
    ) -> None:
        started_s = time.monotonic()
        try:
            size = self._write_files(step, shard, common, validation)
        except (OSError, NeverComplete) as error:
            # tells the other ranks, too
            shutil.rmtree(self._unfinished(step), ignore_errors=True)
            self._on_failure(f"no checkpoint after step {step}: {error}")
            return
        log.info("checkpoint after step %d: %.1f MB in %.2f s", step, size / 1e6, time.monotonic() - started_s)
        when_complete()

    def _write_files(self, step: int, shard: State, common: State | None, validation: ValidationFile | None) -> int:
        """Return the bytes written, once the checkpoint is complete."""
        unfinished, size = begin(self._folder, step), 0
        if validation is not None:
            make_folder_durably(self._folder / VALIDATION)
            size += write_state(validation.samples, self._folder / VALIDATION / validation.name)
        size += write_state(shard, unfinished / shard_name(self._rank))
        if common is None:
            checkpoint = self._folder / checkpoint_name(step)
            self._wait_for(lambda: is_complete(checkpoint), step)
            sync_names(checkpoint)  # that rank 0 has named the marker does not say that the disk has its name
            return size
        size += write_state(common, unfinished / COMMON)
        shards = [unfinished / shard_name(rank) for rank in range(self._world_size)]
        self._wait_for(lambda: all(path.exists() for path in shards), step)
        complete(unfinished, ranks=self._world_size, keep=self._keep)
        return size

    def _unfinished(self, step: int) -> Path:
        return self._folder / (checkpoint_name(step) + UNFINISHED_SUFFIX)

    def _wait_for(self, condition: Callable[[], bool], step: int) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            # in this order: what is not complete once a later one was begun never will be
            lost = is_later_begun(self._folder, step)
            if condition():
                return
            # in this order: the folder is renamed once
            exists = self._unfinished(step).exists() or (self._folder / checkpoint_name(step)).exists()
            if lost or not exists or self._given_up.wait(POLL_S) or time.monotonic() > deadline_s:
                raise NeverComplete("another rank's part is missing")
