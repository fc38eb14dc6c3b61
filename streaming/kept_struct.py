"""Small files of JSON in a run's folder, read back by a part that is started again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from ptychoflow.streaming.codec import UNREADABLE
from ptychoflow.streaming.errors import UserError


def read_kept(path: Path, kind: Any, *, advice: str) -> Any:
    """Return what a file holds.

    Args:
        path: of the file.
        kind: a `msgspec.Struct` or a union of tagged ones.
        advice: what can be done about a damaged file.

    Raises:
        OSError: the file cannot be read.
        UserError: it is damaged.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except UNREADABLE as error:
        raise UserError(f"{path} is damaged: {error}; {advice}") from error
