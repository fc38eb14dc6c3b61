"""The scan of a run that has ended is the same once more, also what a detector sent."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from acquisition_runs import SOURCE, Outcome, run_acquisition
from support import free_ports
from test_live_acquisition import PTYCHI, SCAN, detector, live

from ptychoflow.acquisition.ptychography.scan_again import scan_again, take_again
from ptychoflow.acquisition.scan_settings import ScanSourceSettings
from ptychoflow.acquisition.simulate import simulate_to_file
from ptychoflow.streaming.events import ScanInfo
from ptychoflow.streaming.settings import NetworkSettings


def assert_the_same_again(source: ScanSourceSettings, outcome: Outcome, run: Path, folder: Path) -> None:
    seen = set()
    (info,) = (event for event in outcome.events if isinstance(event, ScanInfo))
    for perspective in scan_again(source, run / "arrivals"):
        (place := folder / str(perspective.index)).mkdir()
        acquired = take_again(perspective, place)
        assert perspective.geometry.object_pixel_size_m == info.object_pixel_size_m
        for row, index in enumerate(acquired.indices.tolist()):
            frame_id = perspective.index, index
            seen.add(frame_id)
            np.testing.assert_array_equal(acquired.frames[row], outcome.edge.frames[frame_id])
            np.testing.assert_array_equal(acquired.positions_px[row], outcome.edge.positions_px[frame_id])
    assert seen == set(outcome.edge.frames)


def test_a_simulated_scan_is_the_same_again(network: NetworkSettings, tmp_path: Path) -> None:
    outcome = run_acquisition(network, tmp_path / "run")
    assert_the_same_again(SOURCE, outcome, tmp_path / "run", tmp_path)


@pytest.mark.parametrize("perspectives", [2, None], ids=["so many", "no number given"])
def test_what_a_detector_sent_is_the_same_again_and_ends(
    network: NetworkSettings, tmp_path: Path, perspectives: int | None
) -> None:
    scan = tmp_path / "scan.h5"
    simulate_to_file(SCAN, scan)
    ports = free_ports(2)
    with ExitStack() as stack:
        for source, port in (("dectris-v2", ports[0]), ("panda", ports[1])):
            address = f"{source}://127.0.0.1:{port}"
            stack.enter_context(detector(address, scan, "--rate", "150", "--pause", "1.5"))
        settings = live("dectris-v2", *ports, None, end_after_idle_s=20.0)
        outcome = run_acquisition(network, tmp_path / "run", source=settings, retrieval=PTYCHI)
    again = settings.model_copy(update={"perspectives": perspectives})
    assert_the_same_again(again, outcome, tmp_path / "run", tmp_path)
