"""Fixtures of the buffer's tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ranks_in_processes import run_in_ranks

RunRanks = Callable[..., list[Any]]


@pytest.fixture(scope="session")
def run_ranks() -> RunRanks:
    """Runs a function in several real processes; see `run_in_ranks`."""
    return run_in_ranks
