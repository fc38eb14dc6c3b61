"""What a draw is written into and `take` returns: two sets of rows, used alternately."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from buffer.cuda import DeviceCopy
from buffer.memory import Rows
from buffer.schema import Schema

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Representatives:
    """Items drawn from all ranks' stores, valid until the next `take`."""

    tensors: dict[str, torch.Tensor]
    """Per field (items, *shape), on the buffer's device."""
    labels: torch.Tensor
    """Class of every item, int64 (items,), on the buffer's device."""
    ids: torch.Tensor
    """Id of every item, int64 (items,), on the CPU; what `annotate` takes."""

    def __len__(self) -> int:
        return len(self.ids)


class OutputSet:
    """Room for one draw. Rows are in no particular order, except that items of one rank are neighbours."""

    def __init__(self, schema: Schema, rows: int, *, device: torch.device = _CPU) -> None:
        pinned = device.type == "cuda"
        self.rows = Rows(schema, rows, pinned=pinned)
        self._labels = torch.zeros(rows, dtype=torch.int64, pin_memory=pinned)
        self.labels = self._labels.numpy()
        self.ids = np.zeros(rows, np.int64)
        self.filled = 0
        self._on_device = DeviceCopy(schema, rows, device) if pinned else None

    def begin(self) -> None:
        """Wait until the rows may be written."""
        if self._on_device is not None:
            self._on_device.wait_until_read()

    def finish(self) -> None:
        """The rows are complete: send them on to the device."""
        if self._on_device is not None:
            self._on_device.copy_from(self.rows, self._labels, self.filled)

    def release(self) -> None:
        """The caller is done with what `representatives` returned."""
        if self._on_device is not None:
            self._on_device.release()

    def representatives(self) -> Representatives:
        """The rows filled by the last draw, without a copy."""
        tensors, labels = self.rows.tensors, self._labels
        if self._on_device is not None:
            self._on_device.acquire()
            tensors, labels = self._on_device.tensors, self._on_device.labels
        return Representatives(
            tensors={name: tensor[: self.filled] for name, tensor in tensors.items()},
            labels=labels[: self.filled],
            ids=torch.from_numpy(self.ids[: self.filled]),
        )


class Outputs:
    """The set that the caller holds and the set that the next draw fills."""

    def __init__(self, schema: Schema, rows: int, *, device: torch.device) -> None:
        self._make = partial(OutputSet, schema, rows, device=device)
        self._held = self._make()
        self.filling = self._make()
        self._abandoned: list[OutputSet] = []

    def swap(self) -> Representatives:
        """Hand out what was filled; what was handed out before is filled next."""
        self._held.release()
        self._held, self.filling = self.filling, self._held
        self.filling.filled = 0
        return self._held.representatives()

    def abandon_filling(self) -> None:
        """Replace the set being filled, because a lost rank's late data may still be written to it."""
        self._abandoned.append(self.filling)
        self.filling = self._make()
