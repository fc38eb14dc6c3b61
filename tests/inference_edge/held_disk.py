"""A disk that takes no images until it is told to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import pytest

from ptychoflow.inference_edge.ptychography import archive
from ptychoflow.streaming.durable_hdf5 import durable_hdf5


@contextmanager
def hold_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Have the archive's writer wait at its next file until the event is set, or the context ends."""
    goes_on = threading.Event()

    @contextmanager
    def durable_hdf5_later(path: Path) -> Iterator[h5py.File]:
        goes_on.wait(120)
        with durable_hdf5(path) as file:
            yield file

    monkeypatch.setattr(archive, "durable_hdf5", durable_hdf5_later)
    try:
        yield goes_on
    finally:
        goes_on.set()
