"""What the samples of a stream look like, and which of them can be trained on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cache

import numpy as np
import numpy.typing as npt

from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.messages import FrameRole

TRAIN, VALIDATION = int(FrameRole.TRAIN), int(FrameRole.VALIDATION)


class SampleFormat(ABC):
    """Knows the arrays of a `Samples` message of one stream."""

    fields: tuple[str, ...]
    """Arrays that are kept of each sample; those of the pipeline."""
    network_input: str
    """The one that the network sees."""

    @abstractmethod
    def fault(self, arrays: Arrays, *, dtype: str | None) -> str | None:
        """Return why none of a message's samples can be used, or None.

        Args:
            arrays: the arrays of a message with a valid `index`.
            dtype: of the network's input so far; None before the first.
        """

    @abstractmethod
    def values_usable(self, arrays: Arrays) -> npt.NDArray[np.bool_]:
        """Return which samples of a message without a fault hold values that can be used, bool (n,)."""

    def usable(self, arrays: Arrays) -> npt.NDArray[np.bool_]:
        """Return which samples can be used and are to train or to validate, bool (n,)."""
        role = arrays["role"]
        learnt_from: npt.NDArray[np.bool_] = (role == TRAIN) | (role == VALIDATION)
        return self.values_usable(arrays) & learnt_from


@cache
def dtype_name(dtype: np.dtype[np.generic]) -> str:
    """Return NumPy's name of a dtype, which takes NumPy as long as a test of a small array."""
    return dtype.name


def shape_fault(arrays: Arrays, shapes: dict[str, tuple[int, ...]]) -> str | None:
    """Return which array is missing or has another shape than it should, or None."""
    for name, shape in shapes.items():
        if name not in arrays:
            return f"no array {name!r}"
        if arrays[name].shape != shape:
            return f"{name} has shape {arrays[name].shape}, expected {shape}"
    return None
