"""Streams of small samples for the trainer's tests."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.messages import FrameRole, ScanStart

FRAME, TARGET = (16, 16), (8, 8)


def scan_start() -> ScanStart:
    """Announce frames of 16 px and patches of 8 px."""
    return ScanStart(
        run="test",
        perspectives=None,
        frame_shape_px=FRAME,
        target_shape_px=TARGET,
        object_pixel_size_m=(1e-8, 1e-8),
        energy_eV=8800.0,
        detector_distance_m=1.0,
        detector_pixel_size_m=(75e-6, 75e-6),
    )


def samples(index: range | list[int], *, role: FrameRole = FrameRole.TRAIN) -> Arrays:
    """Make samples that can be learnt: each quarter of a frame is as bright as that quarter of the patch is high."""
    patches = np.stack([patch(frame) for frame in index])
    counts = 40.0 * (patches + 1.0).repeat(2, axis=1).repeat(2, axis=2)
    return {
        "index": np.array(index, np.int32),
        "role": np.full(len(index), role, np.uint8),
        "diffraction": counts.astype(np.uint16),
        "amplitude": (0.8 + 0.1 * patches).astype(np.float16),
        "phase": patches.astype(np.float16),
    }


def patch(frame: int) -> NDArray[np.float64]:
    """Four quarters with values within ±1."""
    return np.kron(np.random.default_rng(frame).uniform(-1, 1, (2, 2)), np.ones((4, 4)))
