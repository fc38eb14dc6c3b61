"""HDF5 files that another process writes, and what a connection that watches their folder makes of them."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from drained import Drained

from ptychoflow.acquisition.detectors.arrivals import (
    FrameCame,
)
from ptychoflow.acquisition.detectors.hdf5_swmr.decoder import Hdf5SwmrDecoder
from ptychoflow.acquisition.detectors.hdf5_swmr.image import Hdf5Image
from ptychoflow.acquisition.detectors.hdf5_swmr.settings import Hdf5SwmrSettings
from ptychoflow.acquisition.detectors.series_table import SeriesTable
from ptychoflow.acquisition.detectors.settings import JoinSettings

WRITER = Path(__file__).parent / "hdf5_swmr" / "swmr_writer.py"
SHAPE_PX = (3, 4)


def settings(folder: Path, **changes: Any) -> Hdf5SwmrSettings:
    values = {
        "folder": folder,
        "frames": "/entry/data/data",
        "positions": {"path": "/entry/positions"},
        "settle_s": 0.2,
        "quiet_s": 0.5,
    } | changes
    return Hdf5SwmrSettings.model_validate(values)


def frame(index: int) -> np.ndarray:
    return np.full(SHAPE_PX, index, np.uint16)


class Files(Drained):
    """What a connection delivered, and what one decoder makes of it."""

    def __init__(self, its_settings: Hdf5SwmrSettings) -> None:
        super().__init__(lambda: Hdf5SwmrDecoder(its_settings))

    def frames(self, series: str) -> list[int]:
        """Numbers of a series' frames; each must hold its number."""
        came = [arrival for arrival in self.of(FrameCame) if arrival.series == series]
        # in a process of its own, as it is: HDF5 does not refresh what one process has open twice
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            for arrival, image in zip(came, process.map(Hdf5Image.decode, (one.image for one in came)), strict=True):
                np.testing.assert_array_equal(image, frame(arrival.number))
        return [arrival.number for arrival in came]

    def placed(self) -> list[list[int]]:
        """Numbers of the frames of each series that got a position."""
        table = SeriesTable(JoinSettings(first_frame=0, first_sample=0, samples_per_frame=1), idle_s=60.0)
        for at_s, arrival in enumerate(self.arrivals):
            table.apply(arrival, at_s=0.01 * at_s)
        found = []
        while (first := table.first) is not None:
            placed = first.joiner.placed
            found.append(list(placed.take(len(placed)).triggers) if placed else [])
            table.let_go(first)
        return found


Draining = Callable[..., AbstractContextManager[Files]]


class Writer:
    """A process that writes in SWMR mode what it is told."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, str(WRITER), str(folder)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, *words: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(" ".join(str(word) for word in words) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


def write_whole(path: Path, **options: Any) -> None:
    with h5py.File(path, "w", **options) as file:
        file["entry/data/data"] = np.stack([frame(index) for index in range(3)])
        file["entry/positions"] = np.arange(6.0).reshape(3, 2)
        file["entry/positions"].attrs["units"] = "mm"
