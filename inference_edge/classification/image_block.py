"""Labelled images of one task."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ptychoflow.inference_edge.classification.model import Images
from ptychoflow.inference_edge.frame_block import Column, FrameBlock
from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.messages import ClassificationStart


@dataclass(frozen=True)
class ImageBlock(FrameBlock):
    """Images with their labels."""

    label: npt.NDArray[np.int64]
    """(n,)"""
    image: Images


def image_block(arrays: Arrays, start: ClassificationStart) -> ImageBlock:
    """Take the arrays of a `Frames` message of images as they are, without a copy.

    Raises:
        MalformedMessage: an array is missing, or of the wrong shape or dtype.
    """
    shape = (start.channels, start.stored_px, start.stored_px)
    return ImageBlock.from_arrays(arrays, {"label": Column(dtype="int64"), "image": Column(shape, "uint8")})
