"""Fixtures that every folder's tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support import free_block, free_ports

from ptychoflow.streaming.settings import NetworkSettings

WHOLE_RUNS = ("end_to_end", "chaos", "docs")
"""Folders of tests that mostly wait for processes."""
BEHIND_THEM = 4
"""One in so many of the other modules comes after the last of them: what ends a session should be short."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spread the modules that wait over those that compute, so that workers neither all wait nor all compute."""
    modules = dict[Path, list[pytest.Item]]()
    for item in items:
        modules.setdefault(item.path, []).append(item)
    waiting = [path for path in modules if path.parent.name in WHOLE_RUNS]
    others = [path for path in modules if path.parent.name not in WHOLE_RUNS]
    among = len(others) - len(others) // BEHIND_THEM
    places = {path: number * among / max(1, len(waiting)) for number, path in enumerate(waiting)}
    places |= {path: float(number) for number, path in enumerate(others)}
    items[:] = [item for path in sorted(modules, key=places.__getitem__) for item in modules[path]]


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
