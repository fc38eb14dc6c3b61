"""A file that HDF5 can close even when the disk is full."""

from __future__ import annotations

import io
from typing import Any


class DiskFile(io.FileIO):
    """A new binary file whose failed writes are kept in `error` instead of raised.

    HDF5 cannot give up a file that it cannot write: the process crashes when it ends. So HDF5 is told that all is
    well, and whoever uses the file looks at `error` after every operation.
    """

    error: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write all of `data`; after a failure, throw everything away."""
        rest = memoryview(data).cast("B")
        length = len(rest)
        while self.error is None and len(rest):
            try:
                rest = rest[super().write(rest) :]
            except OSError as error:
                self.error = error
        return length

    def truncate(self, size: int | None = None, /) -> int:
        """Set the length; after a failure, do nothing."""
        if self.error is None:
            try:
                return super().truncate(size)
            except OSError as error:
                self.error = error
        return self.tell() if size is None else size
