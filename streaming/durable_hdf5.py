"""HDF5 files that appear only when they are whole and on the disk, and that a full disk does not crash."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from ptychoflow.streaming.disk_file import DiskFile
from ptychoflow.streaming.durable_file import durable_file


@contextmanager
def durable_hdf5(path: Path) -> Iterator[h5py.File]:
    """Yield a new HDF5 file that becomes `path` when the context ends; after an exception nothing of it is left.

    Raises:
        OSError: the disk does not take it, which is found when the context ends; a file that was there is untouched.
    """
    with durable_file(path) as unfinished, DiskFile(unfinished, "w+") as disk:
        with h5py.File(disk, "w") as file:
            yield file
        if disk.error is not None:
            raise disk.error
