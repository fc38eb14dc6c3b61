"""A dataset as a stream of minibatches: perspective after perspective, or everything at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ptychoflow.streaming.messages import FrameRole
from ptychoflow.trainer.interface.pipeline import Minibatch
from ptychoflow.trainer.interface.stream import SectionEnd, Stream, StreamEnd
from ptychoflow.trainer.pipelines.ptychography.pipeline import FIELDS
from ptychoflow.workflow.experiments.ptychography.dataset import Dataset
from ptychoflow.workflow.experiments.ptychography.settings import FromScratchSettings

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Section:
    """What this rank learns before the next evaluation."""

    number: int
    """A perspective, or an epoch."""
    places: Rows
    """(n, 2): perspective and row of each sample, in order."""
    unlabelled: int = 0
    """How many frames come without ground truth, and so no samples: the past is rehearsed while they do."""


def in_sequence(dataset: Dataset, *, passes: float, first: int, rank: int, world_size: int) -> Iterator[Section]:
    """Yield a section per perspective that has training frames, from perspective `first` on, in order of acquisition.

    So does one whose frames lack ground truth (EXCLUDED); its section has no samples. Frames are dealt to the ranks in
    turn. They come `passes` times; a broken number ends with their first ones.
    """
    for perspective in dataset:
        rows, unlabelled = perspective.rows(FrameRole.TRAIN), perspective.rows(FrameRole.EXCLUDED)
        if perspective.index < first:
            continue
        if len(rows):
            mine = rows[rank::world_size]
            mine = np.resize(mine, round(passes * len(mine)))
            yield Section(perspective.index, places(perspective.index, mine))
        elif len(unlabelled):
            mine = unlabelled[rank::world_size]
            yield Section(perspective.index, places(perspective.index, mine[:0]), round(passes * len(mine)))


class Convergence:
    """Notices when a validation loss no longer falls.

    Args:
        settings: what counts as better, and how long to wait for it.
    """

    def __init__(self, settings: FromScratchSettings) -> None:
        self._settings = settings
        self._best = float("inf")
        self._epochs = self._since_best = 0

    def note(self, loss: float) -> None:
        """Take in the loss after an epoch."""
        self._epochs += 1
        self._since_best += 1
        if loss < self._best * (1.0 - self._settings.least_gain):
            self._best, self._since_best = loss, 0

    @property
    def reached(self) -> bool:
        """Whether no more epochs are due."""
        return self._since_best >= self._settings.patience or self._epochs >= self._settings.max_epochs


def everything_at_once(
    dataset: Dataset, *, until: Convergence, seed: int, rank: int, world_size: int
) -> Iterator[Section]:
    """Yield an epoch over all perspectives together, shuffled, until convergence is reached."""
    everything = np.concatenate([places(part.index, part.rows(FrameRole.TRAIN)) for part in dataset])
    epoch = 0
    while not until.reached:
        order = np.random.default_rng((seed, epoch)).permutation(len(everything))
        yield Section(epoch, everything[order][rank::world_size])
        epoch += 1


class SectionStream(Stream):
    """Serves sections as minibatches.

    The next section is asked for only when the one before has been evaluated.

    Args:
        dataset: holds the samples.
        sections: this rank's; none where all has been learnt already.
    """

    def __init__(self, dataset: Dataset, sections: Iterator[Section]) -> None:
        self._dataset, self._sections = dataset, sections
        self._section = next(sections, None)
        self._served = self._passed = 0

    def next_minibatch(self, size: int, *, timeout_s: float) -> Minibatch | None:
        """Return the next `size` samples, fewer at the end of a section, or None there; never waits.

        None also while `size` frames without ground truth pass.
        """
        if self._section is None or self._served >= len(self._section.places):
            self._passed += size
            return None
        places = self._section.places[self._served : self._served + size]
        self._served += len(places)
        return {name: self._read(name, places) for name in FIELDS}

    def _read(self, name: str, places: Rows) -> torch.Tensor:
        rows = [self._dataset[perspective].samples[name][row] for perspective, row in places]
        return torch.from_numpy(np.stack(rows))

    @property
    def end(self) -> SectionEnd | StreamEnd | None:
        """The end of the section once all of it has been served; then that of the stream."""
        if self._section is None:
            return StreamEnd()
        if self._served < len(self._section.places) or self._passed < self._section.unlabelled:
            return None
        return SectionEnd(self._section.number)

    def begin_next_section(self) -> None:
        """Begin the next section."""
        self._section = next(self._sections, None)
        self._served = self._passed = 0


def places(perspective: int, rows: Rows) -> Rows:
    """Return (n, 2): perspective and row of each."""
    return np.stack([np.full(len(rows), perspective), rows], axis=1).astype(np.int64)
