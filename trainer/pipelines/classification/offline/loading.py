"""What every loader of image files does, whatever decodes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
import torch.distributed as dist

from ptychoflow.acquisition.classification.corrupt_files import CorruptFiles
from ptychoflow.trainer.interface.pipeline import Minibatch

Rows = list[int]
"""Positions in the list of files."""

OF_ANOTHER_RANK = "one that another rank names"


class Loader(Protocol):
    """Serves minibatches of files that are chosen anew for every pass.

    A file that cannot be read is named in the log, left out, and counted once.
    """

    @property
    def corrupt(self) -> RanksCorruptFiles:
        """What could not be read."""

    def load(self, batches: Sequence[Rows]) -> Iterator[Minibatch]:
        """Yield one minibatch per entry: `image` uint8 (n, channels, px, px) and `label` int64 (n,).

        Raises:
            UserError: more files are corrupt than the settings allow.
        """


class RanksCorruptFiles(CorruptFiles):
    """Counts files that any rank cannot read.

    Args:
        files: number of all files.
        share: so many of them may be corrupt.
    """

    def __init__(self, files: int, *, share: float) -> None:
        super().__init__(files, share=share, setting="images.corrupt_share")

    def gather(self, device: torch.device) -> None:
        """Take in what other ranks could not read. Collective.

        Args:
            device: where this rank's collectives work.

        Raises:
            UserError: together they are too many; on all ranks.
        """
        if not dist.is_initialized():
            return
        found = torch.zeros(self._files, dtype=torch.uint8)
        found[list(self.reasons)] = 1
        found = found.to(device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        for row in found.nonzero().flatten().tolist():
            self.reasons.setdefault(row, OF_ANOTHER_RANK)
        self._check()
