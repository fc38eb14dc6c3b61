"""What every loader of image files does, whatever decodes them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import torch
import torch.distributed as dist

from ptychoflow.streaming.errors import UserError
from ptychoflow.trainer.interface.pipeline import Minibatch

log = logging.getLogger(__name__)

Rows = list[int]
"""Positions in the list of files."""

OF_ANOTHER_RANK = "one that another rank names"
NAMED = 3
"""Corrupt files that an error names."""


class Loader(Protocol):
    """Serves minibatches of files that are chosen anew for every pass.

    A file that cannot be read is named in the log, left out, and counted once.
    """

    @property
    def corrupt(self) -> CorruptFiles:
        """What could not be read."""

    def load(self, batches: Sequence[Rows]) -> Iterator[Minibatch]:
        """Yield one minibatch per entry: `image` uint8 (n, channels, px, px) and `label` int64 (n,).

        Raises:
            UserError: more files are corrupt than the settings allow.
        """


class CorruptFiles:
    """Counts files that cannot be read.

    Args:
        files: number of all files.
        share: so many of them may be corrupt.
    """

    def __init__(self, files: int, *, share: float) -> None:
        self.reasons: dict[int, str] = {}
        """Why a file could not be read, by its position."""
        self._files, self._share = files, share

    def note(self, reasons: Mapping[int, str]) -> None:
        """Take in and name those that are new.

        Raises:
            UserError: they have become too many.
        """
        for row, reason in reasons.items():
            if row not in self.reasons:
                log.warning("left out an image that cannot be read: %s", reason)
        self.reasons |= reasons
        self._check()

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

    def _check(self) -> None:
        if len(self.reasons) > self._share * self._files:
            named = "; ".join(list(self.reasons.values())[:NAMED])
            raise UserError(
                f"{len(self.reasons)} of {self._files} images cannot be read, more than "
                f"images.corrupt_share = {self._share:g} allows: {named}"
            )
