"""Writes a file for every frame, as a detector does that knows of nothing better."""

from __future__ import annotations

import uuid

import numpy as np
import numpy.typing as npt
import tifffile

from ptychoflow.acquisition.detectors.interface import Simulator
from ptychoflow.acquisition.detectors.watched_folder.settings import (
    FrameFormat,
    SeriesBy,
    WatchedFolderSimulatorSettings,
)
from ptychoflow.acquisition.scan import Perspective
from ptychoflow.streaming.errors import writing


class WatchedFolderSimulator(Simulator):
    """Writes `SESSION_series_NNNN/frame_NNNNNN`, or `SESSION_series_NNNN_NNNNNN`. Nothing says when a series is over.

    Raises:
        UserError: the folder cannot be made.
    """

    def __init__(self, settings: WatchedFolderSimulatorSettings) -> None:
        self._settings = settings
        self._session = uuid.uuid4().hex[:8]
        self._before = ""
        """What stands before the number of a frame."""
        with writing(settings.folder):
            settings.folder.mkdir(parents=True, exist_ok=True)

    def begin(self, perspective: Perspective, *, series: int) -> None:
        """Begin a series. Waits for nobody: who comes later can read what is there."""
        name = f"{self._session}_series_{series:04}"
        if self._settings.series is SeriesBy.NAME:
            self._before = f"{name}_"
            return
        with writing(self._settings.folder / name):
            (self._settings.folder / name).mkdir()
        self._before = f"{name}/frame_"

    def send(self, index: int, frame: npt.NDArray[np.generic], position_m: tuple[float, float]) -> None:
        """Write a frame."""
        path = self._settings.folder / f"{self._before}{index:06}{self._settings.format.ending}"
        with writing(path):
            if self._settings.format is FrameFormat.NPY:
                np.save(path, np.ascontiguousarray(frame), allow_pickle=False)
            else:
                tifffile.imwrite(path, frame)

    def end(self, *, aborted: bool) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing is left."""
