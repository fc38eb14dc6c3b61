"""The simulated file writer, in a process of its own, read while it writes."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from support import wait_until

from ptychoflow.acquisition.detectors.arrivals import FrameCame, PositionsCame, SeriesEnded
from ptychoflow.acquisition.detectors.hdf5_swmr.connection import Hdf5SwmrConnection
from ptychoflow.acquisition.detectors.hdf5_swmr.decoder import Hdf5SwmrDecoder
from ptychoflow.acquisition.detectors.hdf5_swmr.image import Hdf5Image
from ptychoflow.acquisition.detectors.hdf5_swmr.settings import Hdf5SwmrSettings, Hdf5SwmrSimulatorSettings
from ptychoflow.acquisition.detectors.hdf5_swmr.simulator import Hdf5SwmrSimulator
from ptychoflow.acquisition.detectors.interface import Part
from ptychoflow.acquisition.readers.units import LengthUnit
from ptychoflow.acquisition.scan import Perspective

FRAMES = np.arange(7 * 12, dtype=np.uint16).reshape(7, 3, 4)
POSITIONS_M = [(index * 1e-6, index * -3e-6) for index in range(7)]


def write(folder: Path) -> None:
    """Write two series, the second broken off."""
    geometry = SimpleNamespace(frame_shape_px=(3, 4))
    perspective = cast(Perspective, SimpleNamespace(geometry=geometry, read=lambda start, stop: FRAMES[start:stop]))
    simulator = Hdf5SwmrSimulator(
        Hdf5SwmrSimulatorSettings(folder=folder, unit=LengthUnit.MICROMETRE, frames_per_flush=2)
    )
    for series, count in ((1, 7), (2, 4)):
        simulator.begin(perspective, series=series)
        for index in range(count):
            if index != 2:
                simulator.send(index, FRAMES[index], POSITIONS_M[index])
        simulator.end(aborted=count < 7)
    simulator.close()


def test_what_the_simulator_writes_arrives(tmp_path: Path) -> None:
    settings = Hdf5SwmrSettings.model_validate(
        {"folder": tmp_path, "frames": "/entry/data/data", "positions": {"path": "/entry/positions"}}
    )
    messages: list[Sequence[Part]] = []
    stop = threading.Event()
    thread = threading.Thread(target=Hdf5SwmrConnection(settings).drain, args=(messages.append, stop))

    def arrivals() -> list[Any]:
        decoder = Hdf5SwmrDecoder(settings)
        return [arrival for parts in tuple(messages) for arrival in decoder.decode(parts)]

    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        process.submit(int).result()
        thread.start()
        process.submit(write, tmp_path).result()
        wait_until(lambda: sum(isinstance(arrival, SeriesEnded) for arrival in arrivals()) == 2)
        stop.set()
        thread.join()
        came = [arrival for arrival in arrivals() if isinstance(arrival, FrameCame)]
        images = list(process.map(Hdf5Image.decode, (cast(Hdf5Image, arrival.image) for arrival in came)))
    assert [arrival.number for arrival in came] == [*range(7), *range(4)]
    for arrival, image in zip(came, images, strict=True):
        np.testing.assert_array_equal(image, np.zeros((3, 4)) if arrival.number == 2 else FRAMES[arrival.number])
    positions = [arrival for arrival in arrivals() if isinstance(arrival, PositionsCame)]
    for arrival in positions:
        for number, position_m in zip(arrival.numbers, arrival.positions_m, strict=True):
            np.testing.assert_allclose(position_m, (0.0, 0.0) if number == 2 else POSITIONS_M[number], rtol=1e-12)
    assert sum(len(arrival.numbers) for arrival in positions) == 11
