"""Validation samples: those of the newest perspectives in memory, all others on the disk."""

from __future__ import annotations

import logging
import mmap
import os
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ptychoflow.streaming.codec import Arrays

log = logging.getLogger(__name__)

MEMORY_BYTES = 1 << 26
"""Samples of whole perspectives that are held in memory at most."""
SEGMENT_BYTES = 1 << 26
"""Of the disk that is taken at a time. It is a file without a name, which goes with the process however that ends."""
ALIGNMENT = 64


class ValidationStore:
    """Samples by perspective, in the order of their arrival. Not thread-safe.

    Args:
        samples: those that are there at first.
        spool_dir: where there is room for what memory does not hold, made if need be; None keeps all in memory.
    """

    def __init__(self, samples: Mapping[int, list[Arrays]] | None = None, *, spool_dir: Path | None = None) -> None:
        self._parts: defaultdict[int, list[Arrays]] = defaultdict(list, samples or {})
        self._spool_dir = spool_dir
        self._on_disk: set[int] = set()
        self._segments: list[mmap.mmap] = []
        self._free = 0
        """Where in the last segment the next array goes."""

    def append(self, perspective: int, samples: Arrays) -> None:
        """Append samples, arrays of equal length."""
        self._parts[perspective].append(samples)
        self._on_disk.discard(perspective)

    def joined(self) -> dict[int, Arrays]:
        """Return the samples of each perspective as one array for each field; they must not be changed.

        Moves to the disk what memory is not to hold, and blocks for that.
        """
        for segment in self._segments:
            # what was read of it before is on the disk, and need not stay in memory
            segment.madvise(mmap.MADV_DONTNEED)
        for perspective, parts in self._parts.items():
            if len(parts) > 1:
                self._parts[perspective] = [{name: np.concatenate([part[name] for part in parts]) for name in parts[0]}]
        in_memory = [perspective for perspective in self._parts if perspective not in self._on_disk]
        held_bytes = sum(_bytes(self._parts[perspective][0]) for perspective in in_memory)
        for perspective in in_memory[:-1]:
            if held_bytes <= MEMORY_BYTES or self._spool_dir is None:
                break
            held_bytes -= _bytes(self._parts[perspective][0])
            self._move_to_disk(perspective, self._spool_dir)
        return {perspective: parts[0] for perspective, parts in self._parts.items()}

    def _move_to_disk(self, perspective: int, spool_dir: Path) -> None:
        (samples,) = self._parts[perspective]
        try:
            self._parts[perspective] = [{name: self._write(array, spool_dir) for name, array in samples.items()}]
        except OSError as error:
            log.warning("validation samples stay in memory from now on: %s: %s", spool_dir, error.strerror or error)
            self._spool_dir = None
        else:
            self._on_disk.add(perspective)

    def _write(self, array: np.ndarray, spool_dir: Path) -> np.ndarray:
        if not array.size:
            return array
        start = -(-self._free // ALIGNMENT) * ALIGNMENT
        if not self._segments or start + array.nbytes > len(self._segments[-1]):
            self._segments.append(_segment(spool_dir, max(SEGMENT_BYTES, array.nbytes)))
            start = 0
        self._free = start + array.nbytes
        stored = np.frombuffer(self._segments[-1], array.dtype, array.size, start).reshape(array.shape)
        stored[...] = array
        return stored


def _segment(spool_dir: Path, size: int) -> mmap.mmap:
    spool_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=spool_dir) as file:
        # a disk that is full must say so now: once the file is mapped, nobody could be told
        os.posix_fallocate(file.fileno(), 0, size)
        return mmap.mmap(file.fileno(), size)


def _bytes(samples: Arrays) -> int:
    return sum(array.nbytes for array in samples.values())
