"""Everything that an edge talks to, for benchmarks: a publisher, a trainer's weights, a telemetry hub."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch

from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.events import AnyEvent, EdgeCounts, ResidualScores, Telemetry, WeightsApplied
from ptychoflow.streaming.messages import (
    FrameRole,
    Frames,
    PerspectiveEnd,
    Probe,
    Reference,
    ScanEnd,
    ScanStart,
    Weights,
)
from ptychoflow.streaming.publisher import Publisher
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.streaming.telemetry import TelemetryHub
from ptychoflow.streaming.weights_channel import WeightsServer
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.ptychonn import Patches
from ptychoflow.trainer.models.ptychonn_settings import ModelSettings, NetworkConfig
from ptychoflow.trainer.models.tensor_file import digest
from ptychoflow.trainer.models.weights_file import Manifest, read_weights, write_weights
from ptychoflow.workflow.benchmarks.results import BenchmarkFailed

DISTINCT_FRAMES = 256
FRAME_DTYPE = np.dtype(np.uint16)
SCAN_COLUMNS = 32
STEP_PX = 6.3
PIXEL_SIZE_M = (1e-8, 1e-8)
TIMEOUT_S = 300.0


class Beamline:
    """Feeds one edge. A context manager.

    Args:
        network: with ports that are free.
        folder: for the spool and the telemetry log.
        frame_px: frames and patches are this wide and high.
        message_frames: frames in a message.
    """

    def __init__(self, network: NetworkSettings, folder: Path, *, frame_px: int, message_frames: int) -> None:
        self._frame_px, self._message_frames = frame_px, message_frames
        self._network, self._folder = network, folder
        self._counts: EdgeCounts | None = None
        self._residuals: ResidualScores | None = None
        self._ready = False
        self._changed = threading.Condition()
        random = np.random.default_rng(0)
        self._frames = random.poisson(3.0, (DISTINCT_FRAMES, frame_px, frame_px)).astype(FRAME_DTYPE)
        self._sent = self._index = self._perspective = 0

    def __enter__(self) -> Self:
        """Open all sockets and announce the scan."""
        with ExitStack() as stack:
            log_file = self._folder / "telemetry.jsonl"
            stack.enter_context(closing(TelemetryHub(self._network, jsonl=log_file, on_event=self._take)))
            self._trainer = stack.enter_context(closing(WeightsServer(self._network)))
            self._publisher = stack.enter_context(
                Publisher(self._network, spool_dir=self._folder / "spool", memory_bytes=1 << 30, trainer=False)
            )
            shape = (self._frame_px, self._frame_px)
            start = ScanStart("benchmark", None, shape, shape, PIXEL_SIZE_M, 9000.0, 1.0, (75e-6, 75e-6))
            self._publisher.post_to_edge(start)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Close all sockets."""
        self._stack.close()

    def publish(self, weights: bytes) -> None:
        """Offer weights to the edge."""
        manifest = read_weights(weights).manifest
        announced = Weights(manifest.version, digest(weights), step=manifest.step, final=manifest.final)
        self._trainer.publish(announced, weights)

    def wait_until_ready(self) -> None:
        """Wait until the edge uses the weights.

        Raises:
            BenchmarkFailed: it does not within five minutes.
        """
        self._pump_until(lambda: self._ready, "the edge to use the weights")

    def send_probe(self) -> None:
        """Tell the edge what lights the frames of the perspective, so that it scores them without ground truth."""
        probe = np.ones((1, self._frame_px, self._frame_px), np.complex64)
        self._publisher.post_to_edge(Probe(self._perspective, 0.0), {"probe": probe})

    def send(self, frames: int, *, frames_per_s: float | None = None) -> None:
        """Send more frames, as fast as it goes or at a steady rate; a frame is acquired when it is due."""
        began_s, first = time.time(), self._index
        for start in range(first, first + frames, self._message_frames):
            stop = min(start + self._message_frames, first + frames)
            acquired_at_s = time.time() if frames_per_s is None else began_s + (stop - first) / frames_per_s
            while time.time() < acquired_at_s:
                self._publisher.pump(0.001)
            self._publisher.post_to_edge(Frames(self._perspective, 0.0, acquired_at_s), self._batch(start, stop))
            self._publisher.pump(0.0)
        self._index += frames
        self._sent += frames

    def end_perspective(self) -> None:
        """Tell the edge that the next frames belong to another perspective."""
        self._publisher.post_to_edge(PerspectiveEnd(self._perspective, 0.0, self._index))
        self._perspective, self._index = self._perspective + 1, 0

    def send_reference(self, reference: Reference, arrays: Arrays) -> None:
        """Send the image that a perspective is to be compared with."""
        self._publisher.post_to_edge(reference, arrays)

    def end_scan(self) -> None:
        """Tell the edge that nothing more comes, and wait until it knows."""
        self.end_perspective()
        self._publisher.post_to_edge(ScanEnd(self._sent))
        self._pump_until(lambda: not self._publisher.unacknowledged, "the edge to acknowledge the end")

    def wait_until_imaged(self) -> None:
        """Wait until all frames sent have been imaged.

        Raises:
            BenchmarkFailed: it took longer than five minutes.
        """
        # the announcement of the scan is acknowledged with its end
        self._pump_until(lambda: self._publisher.unacknowledged <= 1, f"the edge to image {self._sent} frames")

    def counts(self) -> EdgeCounts:
        """Return what the edge told last; all there is once the context is left."""
        with self._changed:
            if self._counts is None:
                raise BenchmarkFailed("the edge told nothing")
            return self._counts

    def scored_fraction(self) -> float:
        """Return of how many frames the edge told a score without ground truth; all there is as with `counts`."""
        with self._changed:
            return self._residuals.scored / self._residuals.frames if self._residuals is not None else 0.0

    def _pump_until(self, condition: Callable[[], bool], awaited: str) -> None:
        deadline_s = time.monotonic() + TIMEOUT_S
        while not condition():
            self._publisher.pump(0.01)
            if time.monotonic() > deadline_s:
                raise BenchmarkFailed(f"waited {TIMEOUT_S:.0f} s for {awaited}")

    def _batch(self, start: int, stop: int) -> dict[str, npt.NDArray[np.generic]]:
        index = np.arange(start, stop, dtype=np.int32)
        rows, columns = np.divmod(index, SCAN_COLUMNS)
        return {
            "index": index,
            "role": np.full(len(index), FrameRole.TRAIN, dtype=np.uint8),
            "position_px": np.stack([rows, columns], axis=1) * STEP_PX,
            "diffraction": self._frames[index % DISTINCT_FRAMES],
        }

    def _take(self, telemetry: Telemetry, _arrays: Arrays) -> None:
        event: AnyEvent = telemetry.event
        with self._changed:
            if isinstance(event, EdgeCounts):
                self._counts = event
            elif isinstance(event, ResidualScores):
                self._residuals = event
            elif isinstance(event, WeightsApplied):
                self._ready = True


def random_weights(model: ModelSettings, frame_px: int, *, final: bool = True, version: int = 1) -> bytes:
    """Return a weights file of an untrained network from `frame_px` to `frame_px` pixels."""
    torch.manual_seed(version)
    shape = (frame_px, frame_px)
    network = FrameNetwork(NetworkConfig(model=model, frame_shape_px=shape, target_shape_px=shape))
    manifest = Manifest(
        version=version,
        step=0,
        network=network.config,
        validation_loss=None,
        final=final,
        created_at=datetime.now(UTC),
        run="benchmark",
    )
    return write_weights(network, manifest, constant=Patches(torch.ones(shape), torch.zeros(shape)))
