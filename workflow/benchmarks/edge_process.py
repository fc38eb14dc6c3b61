"""A process of its own in which the bare model and the whole edge are measured in turn."""

from __future__ import annotations

import multiprocessing
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self

import numpy as np
import torch

from ptychoflow.inference_edge.backends.runner_factory import RunnerFactory
from ptychoflow.inference_edge.ptychography.service import serve_edge
from ptychoflow.inference_edge.settings import EdgeSettings
from ptychoflow.streaming.settings import NetworkSettings, RunContext
from ptychoflow.trainer.models.weights_file import read_weights
from ptychoflow.workflow.benchmarks.paired_rounds import Took
from ptychoflow.workflow.benchmarks.results import BenchmarkFailed

WARM_UP_BATCHES = 3
BATCHES_MIN = 3
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

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self._connection.close()
        self._process.join(timeout=10.0)
        if self._process.is_alive():
            self._process.kill()

    def bare(self, settings: EdgeSettings, *, seconds: float) -> Took:
        """Return what the model alone takes for frames in memory, `settings.batch_max` at a time. Blocks.

        The frames are float32 already, as the network takes them.
        """
        self._connection.send((settings, None, seconds))
        return self._answer()

    def serve(self, settings: EdgeSettings, network: NetworkSettings, folder: Path) -> None:
        """Begin to serve one scan beside whatever else is asked for; `wait` tells when it is over."""
        self._connection.send((settings, network, folder))

    def wait(self) -> None:
        """Wait until the scan is over and its images are written."""
        self._connection.send(None)
        self._answer()

    @property
    def pid(self) -> int:
        """Of the process, once it is started."""
        if self._process.pid is None:
            raise RuntimeError("the edge's process is not started")
        return self._process.pid

    def _answer(self) -> Took:
        if not self._connection.poll(START_TIMEOUT_S):
            raise BenchmarkFailed("the edge's process does not answer")
        try:
            answer: tuple[float, float, float] = self._connection.recv()
        except EOFError:
            raise BenchmarkFailed("the edge's process ended; its traceback is above") from None
        return Took(*answer)


def _work(connection: Connection, weights: bytes) -> None:
    bare: dict[EdgeSettings, _Bare] = {}
    serving: threading.Thread | None = None
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        if request is None:
            if serving is not None:
                serving.join()
            connection.send((0, 0.0, 0.0))
            continue
        settings, network, argument = request
        if network is None:
            if settings not in bare:
                bare[settings] = _Bare(settings, weights)
            connection.send(tuple(bare[settings].run(argument)))
        else:
            run = {"network": network, "run": RunContext("benchmark", argument, 0), "stop": threading.Event()}
            # a benchmark that was broken off must not leave the process waiting for a scan
            serving = threading.Thread(target=serve_edge, args=(settings,), kwargs=run, daemon=True)
            serving.start()


class _Bare:
    """The model alone, on frames in memory."""

    def __init__(self, settings: EdgeSettings, weights: bytes) -> None:
        torch.set_num_threads(settings.threads)
        network = read_weights(weights).network
        shape = (settings.batch_max, *network.config.frame_shape_px)
        self._batches = [
            np.random.default_rng(n).poisson(3.0, shape).astype(np.float32) for n in range(DISTINCT_BATCHES)
        ]
        self._runner = RunnerFactory(settings).prepare(network)
        for batch in self._batches[:WARM_UP_BATCHES]:
            self._runner(batch)

    def run(self, seconds: float) -> Took:
        batches = 0
        began_s, cpu_began_s = time.perf_counter(), time.process_time()
        while batches < BATCHES_MIN or time.perf_counter() - began_s < seconds:
            self._runner(self._batches[batches % DISTINCT_BATCHES])
            batches += 1
        frames = batches * len(self._batches[0])
        return Took(frames, time.perf_counter() - began_s, time.process_time() - cpu_began_s)
