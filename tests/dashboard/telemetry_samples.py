"""Events that the tests of the dashboard share."""

from __future__ import annotations

import numpy as np

from ptychoflow.streaming.events import (
    AcquisitionCounts,
    Channels,
    MosaicImage,
    MosaicKind,
    PerspectiveScores,
    Quality,
    TrainingStep,
)

PIXEL_SIZE_M = (9e-9, 8e-9)


def quality(psnr_db: float) -> Quality:
    return Quality(Channels(psnr_db + 3, psnr_db), Channels(0.6, 0.5), Channels(0.8, 0.7))


def scores(perspective: int, kind: MosaicKind, psnr_db: float, constant_db: float = 9.0) -> PerspectiveScores:
    return PerspectiveScores(perspective, 1.5, 400, kind, quality(psnr_db), quality(constant_db), [1])


def step(number: int, loss: float = 0.5) -> TrainingStep:
    return TrainingStep(number, loss, loss / 4, loss * 3 / 4, 1e-3, 16 * number, 24 * number, 100.0)


def acquired(frames: int) -> AcquisitionCounts:
    return AcquisitionCounts(frames, frames, 0, 5, 10, 4, 1, 0, 0, 0)


def mosaic(
    perspective: int,
    kind: MosaicKind,
    amplitude: np.ndarray,
    phase: np.ndarray,
    origin_px: tuple[float, float] = (0, 0),
) -> tuple[MosaicImage, dict[str, np.ndarray]]:
    info = MosaicImage(perspective, kind, 7, origin_px, PIXEL_SIZE_M)
    return info, {"amplitude": amplitude.astype(np.float32), "phase": phase.astype(np.float32)}


def ramp(height: int = 6, width: int = 8) -> np.ndarray:
    return np.arange(height * width, dtype=np.float32).reshape(height, width)
