"""Simulate a whole scan into a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ptychoflow.acquisition.readers.hdf5 import PARTIAL_SUFFIX
from ptychoflow.acquisition.recorder import Recorder
from ptychoflow.acquisition.simulation.scan import SimulatedScan
from ptychoflow.acquisition.source_settings import SimulationSettings

FRAMES_PER_BATCH = 64


def simulate_to_file(
    settings: SimulationSettings, path: Path, *, on_frames: Callable[[int], None] | None = None
) -> None:
    """Write the simulated scan to `path`, a recording with its ground truth.

    `on_frames` is told after every batch how many frames were written. Raises `UserError` when `path` exists or cannot
    be written; then nothing is left behind.
    """
    scan = SimulatedScan(settings)
    recorder = Recorder(path, name=scan.name)
    try:
        with recorder:
            for perspective in scan:
                recorder.start_perspective(perspective)
                for batch in perspective.batches(FRAMES_PER_BATCH):
                    recorder.append(batch)
                    if on_frames is not None:
                        on_frames(len(batch))
    except BaseException:
        path.with_name(path.name + PARTIAL_SUFFIX).unlink(missing_ok=True)
        raise
