"""A process of its own in which the bare model and the whole edge are measured in turn."""

from __future__ import annotations

import multiprocessing
import threading
import time
from dataclasses import dataclass
from enum import Enum
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch

from ptychoflow.inference_edge.backends.prediction import Prediction
from ptychoflow.inference_edge.backends.runner import ImmediateRunner, Runner
from ptychoflow.inference_edge.backends.runner_factory import RunnerFactory
from ptychoflow.inference_edge.ptychography.service import serve_edge
from ptychoflow.inference_edge.settings import EdgeSettings
from ptychoflow.inference_edge.stitching.row_owners import THREAD_NAME
from ptychoflow.streaming.settings import NetworkSettings, RunContext
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.models.weights_file import read_weights
from ptychoflow.workflow.benchmarks.helper_process import HelperProcess
from ptychoflow.workflow.benchmarks.paired_rounds import Took
from ptychoflow.workflow.benchmarks.results import BenchmarkFailed

WARM_UP_BATCHES = 3
BATCHES_MIN = 3
START_TIMEOUT_S = 120.0
DISTINCT_BATCHES = 8


class ProcessorTimes(NamedTuple):
    """Processor time so far, in seconds."""

    process_s: float
    serving_thread_s: float
    """Of the thread that receives frames, and stitches patches unless others do."""
    stitching_thread_s: float
    """Of the busiest of those others."""


@dataclass(frozen=True)
class _RunBare:
    settings: EdgeSettings
    seconds: float


@dataclass(frozen=True)
class _Serve:
    settings: EdgeSettings
    network: NetworkSettings
    folder: Path
    answers_at_once: bool


class _Ask(Enum):
    TIMES = "times"
    END = "end"


class EdgeProcess:
    """Runs the bare model, or an edge, when asked to. A context manager.

    Args:
        weights: the weights file of the model.
    """

    def __init__(self, weights: bytes) -> None:
        self._connection, theirs = multiprocessing.Pipe()
        self._process = HelperProcess(_work, theirs, weights)

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
        self._connection.send(_RunBare(settings, seconds))
        return Took(*self._answer())

    def serve(
        self, settings: EdgeSettings, network: NetworkSettings, folder: Path, *, answers_at_once: bool = False
    ) -> None:
        """Begin to serve one scan beside whatever else is asked for; `wait` tells when it is over.

        With `answers_at_once`, the same patches are taken for what the network says of all frames: it costs nothing.
        """
        self._connection.send(_Serve(settings, network, folder, answers_at_once))

    def wait(self) -> None:
        """Wait until the scan is over and its images are written."""
        self._connection.send(_Ask.END)
        self._answer()

    def times(self) -> ProcessorTimes:
        """Return what the process has used while it serves."""
        self._connection.send(_Ask.TIMES)
        return ProcessorTimes(*self._answer())

    @property
    def pid(self) -> int:
        """Of the process, once it is started."""
        if self._process.pid is None:
            raise RuntimeError("the edge's process is not started")
        return self._process.pid

    def _answer(self) -> tuple[float, ...]:
        if not self._connection.poll(START_TIMEOUT_S):
            raise BenchmarkFailed("the edge's process does not answer")
        try:
            answer: tuple[float, ...] = self._connection.recv()
        except EOFError:
            raise BenchmarkFailed("the edge's process ended; its traceback is above") from None
        return answer


def _work(connection: Connection, weights: bytes) -> None:
    bare: dict[EdgeSettings, _Bare] = {}
    serving = threading.current_thread()
    while True:
        try:
            request: _RunBare | _Serve | _Ask = connection.recv()
        except EOFError:
            return
        match request:
            case _RunBare(settings, seconds):
                if settings not in bare:
                    bare[settings] = _Bare(settings, weights)
                connection.send(tuple(bare[settings].run(seconds)))
            case _Serve():
                # a benchmark that was broken off must not leave the process waiting for a scan
                serving = threading.Thread(target=_serve, args=(request,), daemon=True)
                serving.start()
            case _Ask.TIMES:
                stitching = [one for one in threading.enumerate() if one.name.startswith(THREAD_NAME)]
                connection.send((time.process_time(), _busiest_s([serving]), _busiest_s(stitching)))
            case _Ask.END:
                serving.join()
                connection.send(())


def _busiest_s(threads: list[threading.Thread]) -> float:
    """Return the processor time of the one that has had most; they must be alive."""
    clocks = [time.pthread_getcpuclockid(one.ident) for one in threads if one.ident is not None]
    return max(map(time.clock_gettime, clocks), default=0.0)


def _serve(asked: _Serve) -> None:
    serve_edge(
        asked.settings,
        network=asked.network,
        run=RunContext("benchmark", asked.folder, 0),
        stop=threading.Event(),
        factory=_AnswersAtOnce(asked.settings) if asked.answers_at_once else None,
    )


class _AnswersAtOnce(RunnerFactory):
    """Makes runners that give the same patches for all frames, and keep no processor busy."""

    def __init__(self, settings: EdgeSettings) -> None:
        super().__init__(settings)
        self.processors = 0

    def prepare(self, network: FrameNetwork) -> Runner:
        """Make up patches of the network's shape; the network is not used."""
        shape = (self.batch_max, *network.config.target_shape_px)
        random = np.random.default_rng(0)
        amplitude, phase = (random.uniform(0.1, 1.0, shape).astype(np.float32) for _ in range(2))
        return ImmediateRunner(lambda counts: Prediction(amplitude[: len(counts)], phase[: len(counts)]))


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
