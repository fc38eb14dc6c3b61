"""Inference in a thread of its own, beside which frames are received and predictions stitched."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from ptychoflow.inference_edge.backends.base import Runner
from ptychoflow.inference_edge.prediction import Prediction

Predict = Callable[[Runner, npt.NDArray[Any]], Prediction]


@dataclass(frozen=True)
class Predicted:
    """What a network said, and how long it took to say it."""

    prediction: Prediction
    seconds: float


class InferenceThread:
    """Runs networks one batch after the other; while one is computed, the next can already wait.

    Args:
        predict: images frames (n, y, x) with a prepared network; other threads may call it with other networks.
    """

    def __init__(self, predict: Predict) -> None:
        self._predict = predict
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference")
        self.done, self._signal = socket.socketpair()
        """Readable from when a batch is done until `note_done` is called."""
        for end in (self.done, self._signal):
            end.setblocking(False)

    def submit(self, runner: Runner, frames: npt.NDArray[Any]) -> Future[Predicted]:
        """Have a batch imaged after those before it; returns at once."""
        future = self._thread.submit(self._run, runner, frames)
        future.add_done_callback(self._tell)
        return future

    def predict(self, runner: Runner, frames: npt.NDArray[Any]) -> Prediction:
        """Image a batch and wait for it, and for those before it."""
        return self._thread.submit(self._run, runner, frames).result().prediction

    def wait(self, timeout_s: float) -> None:
        """Wait for a batch to be done."""
        select.select([self.done], [], [], timeout_s)

    def note_done(self) -> None:
        """Make `done` tell of batches from now on."""
        try:
            self.done.recv(1 << 10)
        except BlockingIOError:
            return

    def close(self) -> None:
        """Wait for the batch that is computed now; drop those that wait."""
        self._thread.shutdown(cancel_futures=True)
        self._signal.close()
        self.done.close()

    def _run(self, runner: Runner, frames: npt.NDArray[Any]) -> Predicted:
        began_s = time.perf_counter()
        prediction = self._predict(runner, frames)
        return Predicted(prediction, time.perf_counter() - began_s)

    def _tell(self, _: Future[Predicted]) -> None:
        try:
            self._signal.send(b"\0")
        except BlockingIOError:
            return  # it is full of earlier signals, so that `done` is readable
