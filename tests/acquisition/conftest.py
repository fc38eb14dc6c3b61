"""Fixtures of the tests of the acquisition."""

from pathlib import Path

import pytest
from scan_files import write_cxi


@pytest.fixture
def cxi(tmp_path: Path) -> Path:
    """A small valid CXI file."""
    path = tmp_path / "scan.cxi"
    write_cxi(path)
    return path
