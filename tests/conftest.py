"""Fixtures that every folder's tests share."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from streaming.settings import NetworkSettings


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that were free a moment ago, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def free_block(count: int) -> int:
    """Return the first of `count` neighbouring free ports of loopback."""
    for start in range(20_000 + os.getpid() % 10_000, 60_000, count):
        if all(_is_free(start + offset) for offset in range(count)):
            return start
    raise RuntimeError("no block of free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@pytest.fixture
def network() -> NetworkSettings:
    """A network section for one run on loopback, on free ports."""
    frames, acknowledgements, weights, telemetry, fanout = free_ports(5)
    return NetworkSettings(
        frames_port=frames,
        samples_port=free_block(4),
        acknowledgements_port=acknowledgements,
        weights_port=weights,
        telemetry_port=telemetry,
        fanout_port=fanout,
    )


def wait_until(condition: Callable[[], bool], *, timeout_s: float = 20.0) -> None:
    """Poll `condition` until it holds; fail after `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{condition} did not hold within {timeout_s} s")
        time.sleep(0.005)


@pytest.fixture
def measured_data() -> Path:
    """Folder of measured data: PTYCHOFLOW_DATA, or the one beside the repository; the test is skipped without it."""
    folder = Path(os.environ.get("PTYCHOFLOW_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "siemens_star.cxi").exists():
        pytest.skip(f"no measured data in {folder}: set PTYCHOFLOW_DATA to a folder that holds siemens_star.cxi")
    return folder
