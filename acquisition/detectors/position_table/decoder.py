"""Makes positions of the message with the table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ptychoflow.acquisition.detectors.arrivals import Arrival, Malformed, PositionsKnown
from ptychoflow.acquisition.detectors.interface import Decoder, Part
from ptychoflow.acquisition.detectors.position_table.settings import PositionTableSettings

NUMBER_BYTES = 8


class PositionTableDecoder(Decoder):
    """Decodes the table."""

    def __init__(self, settings: PositionTableSettings) -> None:
        self._most_positions = settings.most_positions

    def decode(self, parts: Sequence[Part]) -> Iterable[Arrival]:
        """Return the positions of the table."""
        sizes = [len(part) for part in parts]
        count = sizes[0] // NUMBER_BYTES if sizes else 0
        if sizes != [count * NUMBER_BYTES, count * 2 * NUMBER_BYTES] or count > self._most_positions:
            return [Malformed("the table of positions is damaged")]
        numbers = np.frombuffer(parts[0], "<i8").astype(np.int64)
        return [PositionsKnown(numbers, np.frombuffer(parts[1], "<f8").reshape(-1, 2).astype(np.float64))]
