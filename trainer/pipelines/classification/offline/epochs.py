"""A task as a stream of samples; its sections are epochs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ptychoflow.acquisition.classification.image_folder import ImageFile
from ptychoflow.acquisition.classification.tasks import Tasks
from ptychoflow.trainer.interface.pipeline import Minibatch
from ptychoflow.trainer.interface.stream import SectionEnd, Stream, StreamEnd
from ptychoflow.trainer.pipelines.classification.offline.loading import Loader, Rows
from ptychoflow.trainer.pipelines.classification.settings import Sharding


class Shards:
    """Deals the samples of tasks to the ranks; the same seed gives the same order on every rank.

    Args:
        files: the training set.
        tasks: the classes of each.
        sharding: how samples are dealt.
        world_size: number of ranks.
        seed: of the order.
    """

    def __init__(
        self, files: Sequence[ImageFile], tasks: Tasks, *, sharding: Sharding, world_size: int, seed: int
    ) -> None:
        self._labels = np.array([file.label for file in files])
        self._tasks, self._sharding = tasks, sharding
        self._world_size, self._seed = world_size, seed

    def steps_per_epoch(self, tasks: Sequence[int], *, batch_size: int) -> int:
        """Return the minibatches of the rank that has the most."""
        shares = [len(self.rows(tasks, rank=rank, epoch=0)) for rank in range(self._world_size)]
        return math.ceil(max(shares) / batch_size)

    def rows(self, tasks: Sequence[int], *, rank: int, epoch: int) -> Rows:
        """Return the files of a rank in the order of an epoch over the given tasks together."""
        classes = sorted(label for task in tasks for label in self._tasks[task])
        if self._sharding is Sharding.CLASSES:
            return self._in_order(classes[rank :: self._world_size], tasks, epoch)
        return self._in_order(classes, tasks, epoch)[rank :: self._world_size]

    def _in_order(self, classes: Sequence[int], tasks: Sequence[int], epoch: int) -> Rows:
        rows = np.flatnonzero(np.isin(self._labels, classes))
        order: Rows = np.random.default_rng((self._seed, *tasks, epoch)).permutation(rows).tolist()
        return order


class EpochStream(Stream):
    """Some epochs over one or several tasks together.

    Args:
        loader: reads the files.
        epochs: their numbers, at least one.
        rows: gives this rank's files in an epoch, in order.
        batch_size: samples per minibatch; the last one of an epoch may be smaller.
    """

    def __init__(self, loader: Loader, epochs: range, rows: Callable[[int], Rows], *, batch_size: int) -> None:
        self._loader, self._epochs, self._rows, self._batch_size = loader, epochs, rows, batch_size
        self._epoch = epochs.start
        self._current: Iterator[Minibatch] | None = None
        self._end: SectionEnd | StreamEnd | None = None

    def next_minibatch(self, size: int, *, timeout_s: float) -> Minibatch | None:
        """Return the next minibatch, waiting until it is read; None at the end of an epoch."""
        if self._end is not None:
            return None
        if self._current is None:
            rows = self._rows(self._epoch)
            batches = [rows[first : first + self._batch_size] for first in range(0, len(rows), self._batch_size)]
            self._current = self._loader.load(batches)
        minibatch = next(self._current, None)
        if minibatch is None:
            self._end = SectionEnd(self._epoch)
        return minibatch

    @property
    def end(self) -> SectionEnd | StreamEnd | None:
        """The end of the epoch, or of the task, once all before it has been served."""
        return self._end

    def begin_next_section(self) -> None:
        """Begin the next epoch."""
        self._epoch, self._current = self._epoch + 1, None
        self._end = StreamEnd() if self._epoch == self._epochs.stop else None
