"""A disk that takes no images until it is told to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ptychoflow.inference_edge.ptychography import archive
from ptychoflow.streaming.durable_file import durable_file


@contextmanager
def hold_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Have the archive's writer wait at its next file until the event is set, or the context ends."""
    goes_on = threading.Event()

    @contextmanager
    def durable_file_later(path: Path) -> Iterator[Path]:
        goes_on.wait(120)
        with durable_file(path) as unfinished:
            yield unfinished

    monkeypatch.setattr(archive, "durable_file", durable_file_later)
    try:
        yield goes_on
    finally:
        goes_on.set()
