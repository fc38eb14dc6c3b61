"""The message of a table of positions for `mutated_messages`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mutated_messages import Message, Stream

from ptychoflow.acquisition.detectors.position_table.decoder import PositionTableDecoder
from ptychoflow.acquisition.detectors.position_table.settings import PositionTableSettings


def messages() -> Sequence[Message]:
    """Return the one message, twice."""
    return [[np.arange(50).tobytes(), np.linspace(0.0, 1.0, 100).tobytes()]] * 2


def decoder() -> PositionTableDecoder:
    """Return a decoder of a table."""
    return PositionTableDecoder(PositionTableSettings.model_validate({"table": {"file": "positions.txt"}}))


STREAM = Stream(decoder, messages)
