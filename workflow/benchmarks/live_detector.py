"""A simulated detector in a process of its own, which makes the messages of a series before it sends them."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.detectors.dectris_simulator import SimulatedSeries
from ptychoflow.acquisition.detectors.dectris_v2.settings import DectrisV2SimulatorSettings
from ptychoflow.acquisition.detectors.dectris_v2.simulator import DectrisV2Simulator
from ptychoflow.acquisition.detectors.interface import Part
from ptychoflow.acquisition.detectors.position_sender.sender import PositionSender
from ptychoflow.acquisition.scan import Geometry, Perspective
from ptychoflow.workflow.benchmarks.helper_process import HelperProcess
from ptychoflow.workflow.benchmarks.results import BenchmarkFailed

DISTINCT_FRAMES = 32
POSITIONS_AT_ONCE = 64
STEP_PX = 4.0
START_TIMEOUT_S = 120.0
HIGH_WATER_MARK = 1000


@dataclass(frozen=True)
class Stream:
    """What is sent: stream2."""

    shape_px: tuple[int, int]
    dtype: str
    compression: str


def make_frames(stream: Stream) -> npt.NDArray[np.generic]:
    """Return the distinct frames (n, y, x): few counts far from the beam, more in it, as in a diffraction pattern."""
    random = np.random.default_rng(0)
    height, width = stream.shape_px
    y, x = np.ogrid[:height, :width]
    distance_px = np.hypot(y - height // 2, x - width // 2)
    mean = 200.0 * np.exp(-((distance_px / 12.0) ** 2)) + 20.0 / (1.0 + (distance_px / 8.0) ** 2)
    return np.stack([random.poisson(mean) for _ in range(DISTINCT_FRAMES)]).astype(stream.dtype)


class _Frames(Perspective):
    """What the simulator asks about a scan."""

    def __init__(self, frames: npt.NDArray[np.generic], count: int) -> None:
        self.index, self.angle_deg, self.probe, self.mask, self.ground_truth = 0, 0.0, None, None, None
        self.geometry = Geometry(8800.0, 1.5, (75e-6, 75e-6), (frames.shape[1], frames.shape[2]))
        columns = int(np.ceil(np.sqrt(count)))
        self.positions_px = np.stack(np.divmod(np.arange(count), columns), axis=1) * STEP_PX
        self.dtype = frames.dtype
        self._frames = frames

    def read(self, start: int, stop: int) -> npt.NDArray[np.generic]:
        return self._frames[np.arange(start, stop) % len(self._frames)]


class _PreparedSimulator(DectrisV2Simulator):
    """Makes all messages of a series first."""

    def __init__(self, settings: DectrisV2SimulatorSettings) -> None:
        super().__init__(settings)
        self._messages: list[Sequence[Part]] = []

    def prepare(self, perspective: Perspective, number: int) -> None:
        """Make the messages of a series."""
        series = SimulatedSeries(number, perspective.dtype, 0)
        self._messages = [self._beginning(perspective, series)]
        self._messages += [
            self._image(index, perspective.read(index, index + 1)[0], series) for index in range(len(perspective))
        ]
        self._messages.append(self._ending(series))

    def play(self, positions: PositionSender | None, positions_m: npt.NDArray[np.float64]) -> None:
        """Send them, each block of positions just before its frames, if positions are sent."""
        beginning, *images, ending = self._messages
        self._socket.send(beginning)
        if positions is not None:
            positions.begin(total=len(images))
        for index, message in enumerate(images):
            if index % POSITIONS_AT_ONCE == 0 and positions is not None:
                positions.send(positions_m[index : index + POSITIONS_AT_ONCE])
            self._socket.send(message)
        if positions is not None:
            positions.end()
        self._socket.send(ending)


class Detector:
    """The process. A context manager.

    Args:
        stream: what it sends.
        positions_port: where positions go; None sends none.
        cores: on which it runs.
    """

    def __init__(self, stream: Stream, *, positions_port: int | None, cores: Sequence[int]) -> None:
        self._connection, theirs = multiprocessing.Pipe()
        self._process = HelperProcess(_work, theirs, stream, positions_port, tuple(cores))
        self.port = 0
        """Where it listens."""

    def __enter__(self) -> Self:
        """Start the process."""
        self._process.start()
        self.port = self._answer()
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self._connection.close()
        self._process.join(timeout=10.0)
        if self._process.is_alive():
            self._process.kill()

    def prepare(self, frames: int) -> None:
        """Make the messages of the next series. Blocks."""
        self._connection.send(frames)
        self._answer()

    def send(self) -> None:
        """Begin to send them."""
        self._connection.send(None)

    def wait_until_sent(self) -> None:
        """Wait until all are sent."""
        self._answer()

    def _answer(self) -> Any:
        if not self._connection.poll(START_TIMEOUT_S):
            raise BenchmarkFailed(f"the simulated detector did not answer within {START_TIMEOUT_S:.0f} s")
        try:
            return self._connection.recv()
        except EOFError:
            raise BenchmarkFailed("the simulated detector's process ended; its traceback is above") from None


def _work(connection: Connection, stream: Stream, positions_port: int | None, cores: tuple[int, ...]) -> None:
    os.sched_setaffinity(0, cores)
    settings = DectrisV2SimulatorSettings.model_validate(
        {"port": 0, "compression": stream.compression, "high_water_mark": HIGH_WATER_MARK, "header_detail": "basic"}
    )
    frames = make_frames(stream)
    simulator = _PreparedSimulator(settings)
    connection.send(simulator.port)
    with nullcontext() if positions_port is None else PositionSender(port=positions_port) as positions:
        number = 0
        try:
            while True:
                perspective, number = _Frames(frames, connection.recv()), number + 1
                simulator.prepare(perspective, number)
                connection.send("ready")
                connection.recv()
                simulator.play(positions, perspective.positions_px * perspective.geometry.object_pixel_size_m)
                connection.send("sent")
        except EOFError:
            simulator.close()
