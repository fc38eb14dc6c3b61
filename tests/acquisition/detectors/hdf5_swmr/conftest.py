"""Fixtures of growing HDF5 files."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from drained import drains
from growing_files import Draining, Files, Writer
from support import wait_until

from ptychoflow.acquisition.detectors.hdf5_swmr.connection import Hdf5SwmrConnection
from ptychoflow.acquisition.detectors.hdf5_swmr.settings import Hdf5SwmrSettings
from ptychoflow.acquisition.detectors.interface import Part


@pytest.fixture
def draining(caplog: pytest.LogCaptureFixture) -> Draining:
    """A connection that has looked at what was there before, and drains until the context ends."""

    @contextmanager
    def draining(its_settings: Hdf5SwmrSettings, recalled: Sequence[Sequence[Part]] = ()) -> Iterator[Files]:
        drained = Files(its_settings)
        caplog.set_level(logging.INFO)
        caplog.clear()
        connection = Hdf5SwmrConnection(its_settings)
        for parts in recalled:
            connection.recall(parts)
        with drains(connection, drained.messages.append):
            wait_until(lambda: "written before are left out" in caplog.text or its_settings.earlier_files)
            yield drained

    return draining


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    one = Writer(tmp_path)
    yield one
    one.kill()
