"""Memory in which minibatches are put together while their samples arrive."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ptychoflow.streaming.codec import Arrays
from ptychoflow.trainer.interface.pipeline import Minibatch

FIRST_SIZE = 32
LARGEST_SIZE = 512
"""Larger minibatches are joined from several slots."""


@dataclass(frozen=True)
class SlotRows:
    """Samples that lie one after the other in a slot."""

    slot: Minibatch
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def split(self, count: int) -> tuple[SlotRows, SlotRows]:
        """Return the first `count` samples, and the rest."""
        middle = self.start + count
        return SlotRows(self.slot, self.start, middle), SlotRows(self.slot, middle, self.stop)

    def tensors(self) -> Minibatch:
        """Return views of the samples."""
        return {name: tensor[self.start : self.stop] for name, tensor in self.slot.items()}


class BatchSlots:
    """Copies samples to where the minibatch that they will be part of lies. Use it from one thread.

    Each slot is new memory, and whoever holds a minibatch keeps it.

    Args:
        pinned: page-locked, so that a GPU fetches it while others compute.
    """

    def __init__(self, *, pinned: bool) -> None:
        self.size = FIRST_SIZE
        """Samples of a minibatch, as far as is known."""
        self._pinned = pinned
        self._slot: Minibatch | None = None
        self._filled = self._put = 0

    def put(self, arrays: Arrays, rows: npt.NDArray[np.bool_]) -> list[SlotRows]:
        """Copy those samples of arrays (n, …) for which `rows`, bool (n,), is true; return where they are, in order."""
        chosen = np.flatnonzero(rows)
        # a slice copies faster than a list of rows
        whole = len(chosen) == len(rows)
        parts, first = [], 0
        while first < len(chosen):
            slot = self._open_slot(arrays)
            count = min(len(chosen) - first, len(next(iter(slot.values()))) - self._filled)
            part = SlotRows(slot, self._filled, self._filled + count)
            for name, tensor in part.tensors().items():
                if whole:
                    tensor.numpy()[...] = arrays[name][first : first + count]
                else:
                    np.take(arrays[name], chosen[first : first + count], axis=0, out=tensor.numpy(), mode="clip")
            parts.append(part)
            self._filled, self._put, first = self._filled + count, self._put + count, first + count
        return parts

    def close(self) -> None:
        """Begin a new minibatch with the next sample."""
        self._slot, self._put = None, 0

    def _open_slot(self, arrays: Arrays) -> Minibatch:
        slot = self._slot
        if slot is not None and self._filled < len(next(iter(slot.values()))) and _alike(slot, arrays):
            return slot
        # up to the end of a minibatch, also after one of another size
        size = min(self.size - self._put % self.size, LARGEST_SIZE)
        self._filled = 0
        self._slot = {
            name: torch.empty((size, *array.shape[1:]), dtype=_torch_dtype(array), pin_memory=self._pinned)
            for name, array in arrays.items()
        }
        return self._slot


def join_rows(parts: Sequence[SlotRows]) -> Minibatch:
    """Return the samples of all parts, in order; a view where they lie one after the other."""
    joined = [part.tensors() for part in _contiguous(parts)]
    if len(joined) == 1:
        return joined[0]
    return {name: torch.cat([part[name] for part in joined]) for name in joined[0]}


def _contiguous(parts: Iterable[SlotRows]) -> Iterator[SlotRows]:
    before: SlotRows | None = None
    for part in parts:
        if before is not None and before.slot is part.slot and before.stop == part.start:
            before = SlotRows(part.slot, before.start, part.stop)
            continue
        if before is not None:
            yield before
        before = part
    if before is not None:
        yield before


def _alike(slot: Minibatch, arrays: Arrays) -> bool:
    return slot.keys() == arrays.keys() and all(
        tensor.shape[1:] == arrays[name].shape[1:] and tensor.dtype == _torch_dtype(arrays[name])
        for name, tensor in slot.items()
    )


def _torch_dtype(array: npt.NDArray[np.generic]) -> torch.dtype:
    return torch.from_numpy(np.empty(0, array.dtype)).dtype
