"""What a draw is written into and `take` returns: two sets of rows, used alternately."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from buffer.memory import Rows
from buffer.schema import Schema


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

    def __init__(self, schema: Schema, rows: int) -> None:
        self.rows = Rows(schema, rows)
        self.labels = np.zeros(rows, np.int64)
        self.ids = np.zeros(rows, np.int64)
        self.filled = 0

    def representatives(self) -> Representatives:
        """The rows filled by the last draw, without a copy."""
        return Representatives(
            tensors={name: tensor[: self.filled] for name, tensor in self.rows.tensors.items()},
            labels=torch.from_numpy(self.labels[: self.filled]),
            ids=torch.from_numpy(self.ids[: self.filled]),
        )


class Outputs:
    """The set that the caller holds and the set that the next draw fills."""

    def __init__(self, schema: Schema, rows: int) -> None:
        self._schema = schema
        self._rows = rows
        self._held = OutputSet(schema, rows)
        self.filling = OutputSet(schema, rows)
        self._abandoned: list[OutputSet] = []

    def swap(self) -> Representatives:
        """Hand out what was filled; what was handed out before is filled next."""
        self._held, self.filling = self.filling, self._held
        self.filling.filled = 0
        return self._held.representatives()

    def abandon_filling(self) -> None:
        """Replace the set being filled, because a lost rank's late data may still be written to it."""
        self._abandoned.append(self.filling)
        self.filling = OutputSet(self._schema, self._rows)
