"""Frames that wait on disk, first in, first out."""

from __future__ import annotations

import tempfile
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np

from ptychoflow.inference_edge.ptychography.diffraction_block import DiffractionBlock
from ptychoflow.streaming.errors import UserError


class FrameSpool:
    """Keeps blocks of frames in a file without a name, which goes with the process however that ends.

    The publisher keeps them too until they are acknowledged, so that nothing depends on this file.

    Args:
        directory: on the disk to use.
    """

    def __init__(self, directory: Path) -> None:
        self.frames = 0
        """How many it holds."""
        self._directory = directory
        self._file: IO[bytes] | None = None
        self._blocks: deque[tuple[DiffractionBlock, int, tuple[int, ...]]] = deque()
        self._end = 0

    def append(self, block: DiffractionBlock) -> None:
        """Append a block.

        Raises:
            UserError: it cannot be written.
        """
        if self._file is None:
            self._file = self._open()
        try:
            self._file.seek(self._end)
            self._file.write(np.ascontiguousarray(block.diffraction).data)
            self._file.flush()
        except OSError as error:
            raise self._cannot_write(error) from error
        without_counts = replace(block, diffraction=block.diffraction[:0])
        self._blocks.append((without_counts, self._end, block.diffraction.shape))
        self._end += block.diffraction.nbytes
        self.frames += len(block)

    def pop_oldest(self) -> DiffractionBlock:
        """Remove the oldest block and return it; there must be one.

        Raises:
            UserError: the disk does not give it back.
        """
        block, offset, shape = self._blocks.popleft()
        if self._file is None:
            raise RuntimeError("the spool is closed")
        diffraction = np.empty(shape, block.diffraction.dtype)
        try:
            self._file.seek(offset)
            read_bytes = self._file.readinto(diffraction.data)  # type: ignore[attr-defined]
        except OSError as error:
            raise self._cannot_read(error.strerror) from error
        if read_bytes != diffraction.nbytes:
            raise self._cannot_read("it holds less than was written")
        self.frames -= len(block)
        if not self._blocks:
            self._file.truncate(0)
            self._end = 0
        return replace(block, diffraction=diffraction)

    def close(self) -> None:
        """Let go of all frames and the disk space."""
        if self._file is not None:
            self._file.close()

    def _open(self) -> IO[bytes]:
        try:
            return tempfile.TemporaryFile(dir=self._directory)
        except OSError as error:
            raise self._cannot_write(error) from error

    def _cannot_read(self, why: str | None) -> UserError:
        return UserError(
            f"edge: cannot read frames back that were put off to {self._directory}: {why}; start the edge again: the "
            "acquisition still has them"
        )

    def _cannot_write(self, error: OSError) -> UserError:
        return UserError(
            f"edge: cannot put frames off to {self._directory}: {error.strerror or error}; make space, or set "
            'edge.overload = "spool" to leave them with the acquisition'
        )
