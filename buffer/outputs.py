"""What a draw is written into and `take` returns: two sets of rows, used alternately."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ptychoflow.buffer.cuda import DeviceCopy
from ptychoflow.buffer.memory import Rows, allocate
from ptychoflow.buffer.schema import Schema

_CPU = torch.device("cpu")
_NUMBER_BYTES = np.dtype(np.int64).itemsize


@dataclass(frozen=True)
class Representatives:
    """Items drawn from all ranks' stores, valid until the next `take`; its length is their number."""

    tensors: dict[str, torch.Tensor]
    """Per field (items, *shape), on the buffer's device."""
    labels: torch.Tensor
    """Class of every item, int64 (items,), on the buffer's device."""
    ids: torch.Tensor
    """Id of every item, int64 (items,), on the CPU; what `RehearsalBuffer.update_items` takes."""

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, name: str) -> torch.Tensor:
        """Return a field's tensor, (items, *shape)."""
        return self.tensors[name]


@dataclass(frozen=True)
class Window:
    """Memory of this rank to which others may write what they were asked for."""

    number: int
    """By which the other ranks know it; from 1."""
    memory: torch.Tensor
    """uint8 (nbytes,)"""


class OutputSet:
    """Room for one draw. Rows are in no particular order, except that items of one rank are neighbours."""

    def __init__(
        self, schema: Schema, rows: int, *, device: torch.device = _CPU, memory: torch.Tensor | None = None
    ) -> None:
        """`memory`: uint8 (nbytes,) as many as `OutputSet.nbytes` says; None allocates it."""
        pinned = device.type == "cuda"
        if memory is None:
            memory = allocate(self.nbytes(schema, rows), pinned=pinned)
        numbers = rows * _NUMBER_BYTES
        fields, labels, ids = torch.split(memory, [len(memory) - 2 * numbers, numbers, numbers])
        self.rows = Rows(schema, rows, fields)
        self._labels = labels.view(torch.int64)
        self.labels = self._labels.numpy()
        self.ids = ids.view(torch.int64).numpy()
        self.filled = 0
        self._prepared: Representatives | None = None
        self.window = 0
        """The number of the window that this is; 0 if it is none."""
        self._on_device = DeviceCopy(schema, rows, device) if pinned else None

    @staticmethod
    def nbytes(schema: Schema, rows: int) -> int:
        """Bytes of memory that a set needs: fields, labels, ids."""
        return Rows.nbytes(schema, rows) + 2 * rows * _NUMBER_BYTES

    def close_gaps(self, parts: Sequence[tuple[int, int]]) -> None:
        """Move rows down until all behind `filled` stand one after the other, and count them as filled.

        `parts`: first row and number of rows of what was written there.
        """
        written = [row for first, count in parts for row in range(first, first + count)]
        end = self.filled + len(written)
        gaps = sorted(set(range(self.filled, end)) - set(written))
        for source, target in zip((row for row in written if row >= end), gaps, strict=True):
            self.rows.copy_row(source, target)
            self.ids[target], self.labels[target] = self.ids[source], self.labels[source]
        self.filled = end

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

    def prepare(self) -> None:
        """Make what `representatives` returns, as soon as it is known how many rows the draw fills."""
        self._prepared = self._view()

    def representatives(self) -> Representatives:
        """The rows filled by the last draw, without a copy."""
        if self._on_device is not None:
            self._on_device.acquire()
        prepared, self._prepared = self._prepared, None
        return self._view() if prepared is None else prepared

    def _view(self) -> Representatives:
        tensors, labels = self.rows.tensors, self._labels
        if self._on_device is not None:
            tensors, labels = self._on_device.tensors, self._on_device.labels
        return Representatives(
            tensors={name: tensor.narrow(0, 0, self.filled) for name, tensor in tensors.items()},
            labels=labels.narrow(0, 0, self.filled),
            ids=torch.from_numpy(self.ids[: self.filled]),
        )


class Outputs:
    """The set that the caller holds and the set that the next draw fills."""

    def __init__(
        self, schema: Schema, rows: int, *, device: torch.device, open_window: Callable[[int], Window | None]
    ) -> None:
        """`open_window`: memory of so many bytes to which other ranks can write, or None if there is no such memory."""
        self._schema = schema
        self._rows = rows
        self._device = device
        self._open_window = open_window
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

    def close(self) -> None:
        """Let go of the memory; what was handed out stays valid for as long as the caller keeps it."""
        self._held.begin()
        self.filling.begin()
        del self._held, self.filling
        self._abandoned.clear()

    def _make(self) -> OutputSet:
        """A set on the host is a window; one that is sent on to a GPU must be pinned instead."""
        window = self._open_window(OutputSet.nbytes(self._schema, self._rows)) if self._device.type == "cpu" else None
        if window is None:
            return OutputSet(self._schema, self._rows, device=self._device)
        output_set = OutputSet(self._schema, self._rows, memory=window.memory)
        output_set.window = window.number
        return output_set
