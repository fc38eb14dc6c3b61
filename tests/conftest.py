"""Fixtures that every folder's tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support import free_block, free_ports

from ptychoflow.streaming.settings import NetworkSettings


@pytest.fixture
def network() -> NetworkSettings:
    """A network section for one run on loopback, on free ports."""
    frames, acknowledgements, weights, telemetry, fanout, commands, commands_fanout = free_ports(7)
    return NetworkSettings(
        frames_port=frames,
        samples_port=free_block(4),
        acknowledgements_port=acknowledgements,
        weights_port=weights,
        telemetry_port=telemetry,
        fanout_port=fanout,
        commands_port=commands,
        commands_fanout_port=commands_fanout,
    )


@pytest.fixture
def measured_data() -> Path:
    """Folder of measured data: PTYCHOFLOW_DATA, or the one beside the repository; the test is skipped without it."""
    folder = Path(os.environ.get("PTYCHOFLOW_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "siemens_star.cxi").exists():
        pytest.skip(f"no measured data in {folder}: set PTYCHOFLOW_DATA to a folder that holds siemens_star.cxi")
    return folder
