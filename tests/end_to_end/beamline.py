"""A detector, or what says where the probe was, that runs by the clock: series begin when a plan says so, heard or not.

`python beamline.py SOURCE SCAN PLAN`. Two such processes know nothing of each other but the time. They wait for a plan;
one that is started again begins to count its series anew, and goes on with the next one of the plan.
"""

from __future__ import annotations

import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import msgspec

from ptychoflow.acquisition.detectors.interface import Simulator
from ptychoflow.acquisition.detectors.simulators import make_simulator
from ptychoflow.acquisition.scan import Perspective
from ptychoflow.acquisition.source_settings import ReplaySettings
from ptychoflow.acquisition.sources import open_scan
from ptychoflow.workflow.configuration.live_choice import simulator_settings

POLL_S = 0.05
JOINED = {
    "source.positions.field_y": "INENC2.VAL",
    "source.positions.field_x": "INENC1.VAL",
    "source.positions.stale_first_sample": False,
    "source.join.first_frame": 0,
    "source.join.first_sample": 0,
    "source.join.samples_per_frame": 1,
}
"""What a run must be told of what a simulated detector and PandA send."""


class PlannedSeries(msgspec.Struct, frozen=True):
    """One series of a plan."""

    begin_s: float
    """`time.time()`."""
    perspective: int
    """Of the scan that is sent."""
    aborted: bool


class Plan(msgspec.Struct, frozen=True):
    """When what is sent."""

    series: list[PlannedSeries]
    rate_hz: float


def ready_file(plan_file: Path, source: str) -> Path:
    """Return the file that is there once a source waits for the plan."""
    return plan_file.with_suffix(f".{source.partition(':')[0]}")


def play(
    simulator: Simulator, perspective: Perspective, planned: PlannedSeries, rate_hz: float, *, series: int
) -> None:
    """Send a series, no frame before its time."""
    frames = len(perspective) // 2 if planned.aborted else len(perspective)
    positions_m = (perspective.positions_px * perspective.geometry.object_pixel_size_m).tolist()
    counts = perspective.read(0, frames)
    time.sleep(max(planned.begin_s - time.time(), 0.0))
    simulator.begin(perspective, series=series)
    for index in range(frames):
        time.sleep(max(planned.begin_s + (index + 1) / rate_hz - time.time(), 0.0))
        simulator.send(index, counts[index], tuple(positions_m[index]))
    simulator.end(aborted=planned.aborted)


def main() -> None:
    """Send what is left of a plan."""
    source, scan, plan_file = sys.argv[1:]
    losing = ["simulator.loses_unheard=true"]
    with (
        closing(open_scan(ReplaySettings(path=Path(scan)))) as opened,
        closing(make_simulator(simulator_settings(source, losing))) as simulator,
        suppress(InterruptedError),
    ):
        ready_file(Path(plan_file), source).touch()
        while not Path(plan_file).exists():
            time.sleep(POLL_S)
        plan = msgspec.json.decode(Path(plan_file).read_bytes(), type=Plan)
        number = 0
        for planned in plan.series:
            if planned.begin_s > time.time():
                number += 1
                play(simulator, opened.perspective(planned.perspective), planned, plan.rate_hz, series=number)


if __name__ == "__main__":
    main()
