"""Fixtures of growing HDF5 files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from drained import drains_folder
from growing_files import Draining, Files, Writer

from ptychoflow.acquisition.detectors.hdf5_swmr.connection import Hdf5SwmrConnection
from ptychoflow.acquisition.detectors.hdf5_swmr.settings import Hdf5SwmrSettings
from ptychoflow.acquisition.detectors.interface import Part


@pytest.fixture
def draining(caplog: pytest.LogCaptureFixture) -> Draining:
    """A connection that has looked at what was there before, and drains until the context ends."""

    def draining(
        its_settings: Hdf5SwmrSettings, recalled: Sequence[Sequence[Part]] = ()
    ) -> AbstractContextManager[Files]:
        left_out = None if its_settings.earlier_files else "written before are left out"
        connection, drained = Hdf5SwmrConnection(its_settings), Files(its_settings)
        return drains_folder(connection, drained, caplog, recalled=recalled, left_out=left_out)

    return draining


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    one = Writer(tmp_path)
    yield one
    one.kill()
