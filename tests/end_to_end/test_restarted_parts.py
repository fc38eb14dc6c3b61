"""Parts that are started by hand, each a process of its own; edge and acquisition are killed in mid-scan."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from support import wait_until

from ptychoflow.acquisition.sources import open_scan
from ptychoflow.streaming.events import AcquisitionCounts, AnyEvent, EdgeCounts, Part, PartState, PartStatus, Telemetry
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.streaming.telemetry_log import TelemetryLog
from ptychoflow.workflow.configuration.config import load_config
from ptychoflow.workflow.launching.telemetry_collection import collected_telemetry

PERSPECTIVES, FRAMES_EACH = 4, 40
FRAMES = PERSPECTIVES * FRAMES_EACH
SETTINGS = {
    "source.kind": "simulation",
    "source.perspectives": PERSPECTIVES,
    "source.frames_per_perspective": FRAMES_EACH,
    "source.frame_shape_px": [32, 32],
    "acquisition.rate_hz": 40.0,
    "acquisition.batch_frames": 4,
    "retrieval.source": "simulated",
    "retrieval.target_shape_px": [16, 16],
    "trainer.batch_size": 8,
    "trainer.pace": "stream",
    "trainer.finish_s": 0.5,
    "trainer.publish_every_s": 0.5,
    # an edge that is started again has libraries to load first
    "trainer.wait_until_served_s": 60.0,
    "trainer.model.width": 4,
    "trainer.buffer.capacity": 100,
    "edge.backend": "eager",
    "edge.keep": 1,
    "edge.report_period_s": 0.1,
}


class Parts:
    """Starts parts of one run; knows what they told."""

    def __init__(self, folder: Path, network: NetworkSettings) -> None:
        values = SETTINGS | {"run.directory": str(folder.parent), "run.name": folder.name}
        values |= {f"network.{key}": value for key, value in network.model_dump(mode="json").items() if value}
        self.assignments = [f"{key}={json.dumps(value)}" for key, value in values.items()]
        self._telemetry = TelemetryLog(RunFolder(folder).telemetry)
        self._told: list[Telemetry] = []

    @contextmanager
    def started(self, part: str) -> Iterator[subprocess.Popen[str]]:
        """Run a part; nothing of it is left afterwards."""
        command = [sys.executable, "-m", "ptychoflow", part, *(f"--set={one}" for one in self.assignments)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.kill()

    def events(self, kind: type[AnyEvent]) -> list[Any]:
        return [told.event for told in self.told(kind)]

    def told(self, kind: type[AnyEvent]) -> list[Telemetry]:
        """Return the events of a kind with who sent them."""
        with suppress(FileNotFoundError):
            self._told += self._telemetry
        return [told for told in self._told if isinstance(told.event, kind)]

    def acquired(self) -> int:
        counts = self.events(AcquisitionCounts)
        return counts[-1].acquired if counts else 0

    def imaged(self) -> int:
        return max((counts.inferred for counts in self.events(EdgeCounts)), default=0)

    def sent_again(self) -> int:
        return max((counts.duplicates for counts in self.events(EdgeCounts)), default=0)

    def waits_for(self, condition: Callable[[], bool], *processes: subprocess.Popen[str]) -> None:
        def holds() -> bool:
            for process in processes:
                assert process.poll() is None, process.communicate()[1][-3000:]
            return condition()

        wait_until(holds, timeout_s=100)


@pytest.fixture
def parts(network: NetworkSettings, tmp_path: Path) -> Parts:
    return Parts(tmp_path / "run", network)


def killed(process: subprocess.Popen[str]) -> None:
    process.kill()
    assert process.wait() == -signal.SIGKILL


def ended_well(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        errors = process.communicate(timeout=100)[1]
        assert process.returncode == 0, errors[-3000:]


def require_all_imaged(summary: dict[str, Any], folder: Path, parts: Parts) -> None:
    """Every frame is counted once, and the images show every one of them."""
    frames = summary["frames"]
    assert (frames["acquired"], frames["published"], frames["inferred"]) == (FRAMES, FRAMES, FRAMES)
    assert (frames["lost"], frames["rejected"], frames["unlabelled"]) == (0, 0, 0)
    assert [one["frames"] for one in summary["perspectives"]] == [FRAMES_EACH] * PERSPECTIVES
    scan = open_scan(load_config(assignments=parts.assignments).source)
    for index in range(PERSPECTIVES):
        corners = np.floor(scan.perspective(index).positions_px - 8).astype(int)
        with h5py.File(folder / "images" / f"perspective_{index:04d}.h5") as file:
            for kind in ("first_pass", "refreshed"):
                # one patch of 16 px covers a pixel more where its position is not an integer
                assert file[kind]["coverage"][()].sum() == FRAMES_EACH * 17**2
                np.testing.assert_array_equal(file[kind].attrs["origin_px"], corners.min(axis=0))


def test_a_killed_edge_and_a_killed_acquisition_are_started_again_and_no_frame_is_lost(
    parts: Parts, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with ExitStack() as stack:
        stack.enter_context(collected_telemetry(load_config(assignments=parts.assignments), RunFolder(folder)))
        trainer, edge = (stack.enter_context(parts.started(part)) for part in ("train", "edge"))
        parts.waits_for(lambda: len(parts.events(PartStatus)) >= 2, trainer, edge)
        acquisition = stack.enter_context(parts.started("acquire"))
        parts.waits_for(lambda: parts.acquired() > FRAMES_EACH, trainer, edge, acquisition)
        killed(acquisition)
        assert parts.acquired() < FRAMES
        resumed = stack.enter_context(parts.started("acquire"))
        parts.waits_for(lambda: parts.imaged() > FRAMES_EACH and parts.sent_again() > 0, trainer, edge, resumed)
        killed(edge)
        ended_well(stack.enter_context(parts.started("edge")), resumed, trainer)
    done = {told.part for told in parts.told(PartStatus) if told.event.state is PartState.DONE}
    assert {Part.ACQUISITION, Part.TRAINER, Part.EDGE} <= done
    require_all_imaged(json.loads((folder / "summary.json").read_text()), folder, parts)
