"""Fixtures that every folder's tests share."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from support import free_network

from ptychoflow.streaming.seldom import Seldom
from ptychoflow.streaming.settings import NetworkSettings


@pytest.fixture(autouse=True)
def what_is_logged_seldom() -> None:
    """Have the first log entry of each kind pass in every test, whatever the tests before have caused."""
    loggers = [one for one in logging.root.manager.loggerDict.values() if isinstance(one, logging.Logger)]
    for seldom in (one for logger in loggers for one in logger.filters if isinstance(one, Seldom)):
        seldom._passed.clear()


@pytest.fixture
def network() -> NetworkSettings:
    """A network section for one run on loopback, on free ports."""
    return free_network()


@pytest.fixture
def measured_data() -> Path:
    """Folder of measured data: PTYCHOFLOW_DATA, or the one beside the repository; the test is skipped without it."""
    folder = Path(os.environ.get("PTYCHOFLOW_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "siemens_star.cxi").exists():
        pytest.skip(f"no measured data in {folder}: set PTYCHOFLOW_DATA to a folder that holds siemens_star.cxi")
    return folder
