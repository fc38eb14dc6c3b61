"""What is to be rewritten of stored items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ptychoflow.buffer.index import Ints
from ptychoflow.buffer.memory import ByteRows


@dataclass(frozen=True)
class ItemUpdate:
    """New values of some fields, of the score, or of both."""

    ids: Ints
    """(items,)"""
    fields: dict[str, ByteRows]
    scores: npt.NDArray[np.float64] | None = None
    """(items,)"""

    def part(self, chosen: npt.NDArray[np.bool_]) -> ItemUpdate:
        """The same for the items chosen, a mask (items,)."""
        return ItemUpdate(
            self.ids[chosen],
            {name: rows[chosen] for name, rows in self.fields.items()},
            None if self.scores is None else self.scores[chosen],
        )
