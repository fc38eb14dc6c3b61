"""Images with their labels, as they arrive."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.messages import ClassificationStart
from ptychoflow.trainer.interface.sample_format import SampleFormat, shape_fault


class ImageSamples(SampleFormat):
    """The samples of a stream of images.

    Args:
        start: announces shape and classes.
    """

    fields = ("image", "label")
    network_input = "image"

    def __init__(self, start: ClassificationStart) -> None:
        self._start = start

    def fault(self, arrays: Arrays, *, dtype: str | None) -> str | None:
        """Return why none of a message's samples can be used, or None."""
        count, px = len(arrays["index"]), self._start.stored_px
        shapes = {"role": (count,), "image": (count, self._start.channels, px, px), "label": (count,)}
        if (fault := shape_fault(arrays, shapes)) is not None:
            return fault
        if arrays["image"].dtype != np.uint8 or arrays["label"].dtype != np.int64:
            return "images must be uint8 and labels int64"
        return None

    def values_usable(self, arrays: Arrays) -> npt.NDArray[np.bool_]:
        """Return which samples are of a class that was announced, bool (n,)."""
        label = arrays["label"]
        return np.asarray((label >= 0) & (label < self._start.classes))
