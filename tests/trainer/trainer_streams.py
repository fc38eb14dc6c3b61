"""Streams of samples for the trainer's tests."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streaming.codec import Arrays
from streaming.messages import FrameRole, ScanStart

FRAME, TARGET = (16, 16), (8, 8)


def scan_start(perspectives: int = 1) -> ScanStart:
    return ScanStart(
        run="test",
        perspectives=perspectives,
        frame_shape_px=FRAME,
        target_shape_px=TARGET,
        object_pixel_size_m=(1e-8, 1e-8),
        energy_eV=8800.0,
        detector_distance_m=1.0,
        detector_pixel_size_m=(75e-6, 75e-6),
    )


def samples(index: list[int], *, role: FrameRole = FrameRole.TRAIN, seed: int = 0) -> Arrays:
    """Frames whose patches can be learnt: a bright quarter of the frame says where the patch is bright."""
    patches = [patch(frame, seed=seed) for frame in index]
    return {
        "index": np.array(index, np.int32),
        "role": np.full(len(index), role, np.uint8),
        "diffraction": np.stack([np.kron(p + 1.0, np.full((2, 2), 40)) for p in patches]).astype(np.uint16),
        "amplitude": np.stack([0.8 + 0.1 * p for p in patches]).astype(np.float16),
        "phase": np.stack(patches).astype(np.float16),
    }


def patch(frame: int, *, seed: int = 0) -> NDArray[np.float64]:
    values = np.random.default_rng((seed, frame)).uniform(-1, 1, (2, 2))
    return np.kron(values, np.ones((4, 4)))
