"""What a backend makes of a network: something that frames are given to, and that gives their patches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

import numpy.typing as npt

from ptychoflow.inference_edge.backends.prediction import Prediction, join_predictions

Result: TypeAlias = Callable[[], Prediction]
"""Waits for patches that nobody else will write to. To be called, once: it keeps what the device computes with."""


class Runner(ABC):
    """A network that is ready to run.

    One thread at a time may begin with frames; their results may be waited for in another.
    """

    overlaps: ClassVar[bool]
    """Whether `begin` returns before the patches are there, and more frames can be begun with meanwhile."""

    @abstractmethod
    def begin(self, counts: npt.NDArray[Any]) -> Result:
        """Begin with counts (n, y, x) of any real dtype, which may be changed once this returns."""

    def __call__(self, counts: npt.NDArray[Any]) -> Prediction:
        """Run the network on counts (n, y, x) of any real dtype. Blocks."""
        return self.begin(counts)()


class ImmediateRunner(Runner):
    """Runs a network on the processor, in the thread that begins.

    Args:
        run: maps counts (n, y, x) of any real dtype to patches.
    """

    overlaps = False

    def __init__(self, run: Callable[[npt.NDArray[Any]], Prediction]) -> None:
        self._run = run

    def begin(self, counts: npt.NDArray[Any]) -> Result:
        """Compute the patches."""
        prediction = self._run(counts)
        return lambda: prediction


def run_in_batches(runner: Runner, frames: npt.NDArray[Any], *, batch_max: int) -> Prediction:
    """Run a network on any number of frames (n, y, x) of counts, `batch_max` at a time. Blocks."""
    return begin_in_batches(runner, frames, batch_max=batch_max)()


def begin_in_batches(runner: Runner, frames: npt.NDArray[Any], *, batch_max: int) -> Result:
    """Begin with frames (n, y, x), `batch_max` at a time; a device has all of them at once."""
    starts = range(0, max(len(frames), 1), batch_max)
    results = [runner.begin(frames[start : start + batch_max]) for start in starts]
    return lambda: join_predictions([result() for result in results])
