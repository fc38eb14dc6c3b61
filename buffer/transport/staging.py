"""Memory in which items wait to be sent, reused from request to request."""

from __future__ import annotations

from ptychoflow.buffer.outputs import OutputSet
from ptychoflow.buffer.schema import Schema


class Staging:
    """Sets of rows, as many as replies are on their way at once; sizes are powers of two so that they fit again."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._free: dict[int, list[OutputSet]] = {}

    def acquire(self, rows: int) -> OutputSet:
        """A set with at least `rows` rows, for the caller until it releases it."""
        size = 1 << (rows - 1).bit_length()
        free = self._free.get(size)
        return free.pop() if free else OutputSet(self._schema, size)

    def release(self, staged: OutputSet) -> None:
        """Allow the set to be reused."""
        self._free.setdefault(staged.rows.count, []).append(staged)
