"""A process of its own in which the bare model and the whole edge are measured in turn."""

from __future__ import annotations

import multiprocessing
import statistics
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch

from inference_edge.inference import Imager
from inference_edge.service import serve_edge
from inference_edge.settings import EdgeSettings
from streaming.settings import NetworkSettings, RunContext
from trainer.models.weights_file import read_weights
from workflow.benchmarks.results import BenchmarkFailed

WARM_UP_BATCHES = 3
BATCHES_MIN = 4
BARE_S = 1.0
START_TIMEOUT_S = 120.0
DISTINCT_BATCHES = 8


class EdgeProcess:
    """Runs the bare model, or an edge, when asked to. A context manager.

    Args:
        weights: the weights file of the model.
    """

    def __init__(self, weights: bytes) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, weights))

    def __enter__(self) -> Self:
        """Start the process."""
        self._process.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        self._connection.close()
        self._process.join(timeout=10.0)
        if self._process.is_alive():
            self._process.kill()

    def bare_batch_s(self, settings: EdgeSettings) -> float:
        """Return the median seconds that the model alone takes for `settings.batch_max` frames in memory. Blocks."""
        self._connection.send((settings, None, None))
        return float(self._answer())

    def serve(self, settings: EdgeSettings, network: NetworkSettings, folder: Path) -> None:
        """Begin to serve one scan; `wait` tells when it is over."""
        self._connection.send((settings, network, folder))

    def wait(self) -> None:
        """Wait until the scan is over and its images are written."""
        self._answer()

    def _answer(self) -> float:
        if not self._connection.poll(START_TIMEOUT_S):
            raise BenchmarkFailed("the edge's process does not answer")
        try:
            answer: float = self._connection.recv()
        except EOFError:
            raise BenchmarkFailed("the edge's process ended; its traceback is above") from None
        return answer


def _work(connection: Connection, weights: bytes) -> None:
    while True:
        try:
            settings, network, folder = connection.recv()
        except EOFError:
            return
        if network is None:
            connection.send(_bare_batch_s(settings, weights))
        else:
            serve_edge(settings, network=network, run=RunContext("benchmark", folder, 0), stop=threading.Event())
            connection.send(0.0)


def _bare_batch_s(settings: EdgeSettings, weights: bytes) -> float:
    torch.set_num_threads(settings.threads)
    network = read_weights(weights).network
    shape = (settings.batch_max, *network.config.frame_shape_px)
    batches = [np.random.default_rng(n).poisson(3.0, shape).astype(np.float32) for n in range(DISTINCT_BATCHES)]
    runner = Imager(settings).prepare(network)
    for batch in batches[:WARM_UP_BATCHES]:
        runner(batch)
    took_s: list[float] = []
    began_s = time.perf_counter()
    while len(took_s) < BATCHES_MIN or time.perf_counter() - began_s < BARE_S:
        batch_began_s = time.perf_counter()
        runner(batches[len(took_s) % DISTINCT_BATCHES])
        took_s.append(time.perf_counter() - batch_began_s)
    return statistics.median(took_s)
