"""Two runs as their telemetry tells them, with images: what the page has to show of a scan and of labelled images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from speaking import Said, of, of_rank
from telemetry_samples import quality

from ptychoflow.streaming.events import (
    AcquisitionCounts,
    AnyEvent,
    BufferReport,
    ClassificationInfo,
    EdgeCounts,
    FrameTaken,
    GroundTruthReady,
    HeldOutScores,
    Missing,
    MosaicImage,
    MosaicKind,
    Part,
    PartState,
    PartStatus,
    PerspectiveScores,
    PerspectiveStarted,
    PositionsTaken,
    RankCounts,
    ResidualCalibrated,
    ResidualMapped,
    ResidualScores,
    ScanInfo,
    StepBreakdown,
    TaskAccuracies,
    TaskScores,
    TrainingStep,
    Unplaced,
    ValidationLoss,
    WarningRaised,
    WeightsApplied,
    WeightsPublished,
)
from ptychoflow.streaming.messages import GroundTruthSource

Arrays = Mapping[str, npt.NDArray[Any]]
Story = Iterator[tuple[Said | AnyEvent, Arrays]]

PERSPECTIVES, FRAMES = 8, 400
TASKS, IMAGES = 5, 240
NAMES = ["T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]


def scan_story() -> Story:
    """Eight perspectives of a rotating specimen; the last one is held out."""
    total = PERSPECTIVES * FRAMES
    yield ScanInfo(
        "beamtime/chip_042.h5", PERSPECTIVES, total, (128, 128), (64, 64), (8.6e-9, 8.6e-9), 8800.0,
        GroundTruthSource.PTYCHI, ["The probe was estimated from the frames: the file holds none."],
    ), {}  # fmt: skip
    yield from _parts("scanning")
    for number in range(PERSPECTIVES):
        angle = 180.0 * number / PERSPECTIVES
        positions = np.stack([np.repeat(np.arange(20), 20) * 10.0, np.tile(np.arange(20), 20) * 10.0], axis=1)
        yield PerspectiveStarted(number, angle), {"positions_px": positions.astype(np.float32)}
        yield from _scanned(number, angle)
        yield from _trained(number, 60 * (number + 1), PERSPECTIVES)
    done = PERSPECTIVES * FRAMES
    yield AcquisitionCounts(done, done, 2800, 0, FRAMES, 0, 0, 0, 0, 0), {}
    for rank in (0, 1):
        yield of_rank(rank, RankCounts(1260, 140, 0, 0, ranks=2)), {}
    yield HeldOutScores(PERSPECTIVES - 1, FRAMES, quality(22.8), quality(15.1), PERSPECTIVES), {}
    yield FrameTaken(PERSPECTIVES - 1, 399, 1), {"diffraction": _diffraction()}
    yield of(Part.EDGE, WarningRaised("the probe was estimated; positions may be off by a pixel")), {}


def live_story() -> Story:
    """A detector: the third series is coming, nobody knows how many will; some frames never came or have no place."""
    yield ScanInfo(
        "dectris-v2 and panda", None, None, (128, 128), (64, 64), (8.6e-9, 8.6e-9), 8800.0, GroundTruthSource.PTYCHI,
        ["The detector has no probe; it was estimated from 64 frames"],
    ), {}  # fmt: skip
    yield from _parts("scanning")
    for number in range(2):
        yield PerspectiveStarted(number, 0.0), {"positions_px": np.zeros((0, 2), np.float32)}
        yield PositionsTaken(number), _taken(0, 400)
        yield from _scanned(number, 60.0 * number)
        yield from _trained(number, 60 * (number + 1), 3)
    yield (
        of(
            Part.ACQUISITION,
            WarningRaised("perspective 1 ended without a word, when the next one began, after 380 frames"),
        ),
        {},
    )
    yield PerspectiveStarted(2, 0.0), {"positions_px": np.zeros((0, 2), np.float32)}
    for start in range(0, 240, 40):
        yield FrameTaken(2, start + 39, 1, most_frames=400), {"diffraction": _diffraction()}
        yield PositionsTaken(2), _taken(start, start + 40)
    image = _noisy(_specimen(0.0), 0.3, 2)
    yield MosaicImage(2, MosaicKind.FIRST_PASS, 2, (0.0, 0.0), (8.6e-9, 8.6e-9)), image
    preview = _noisy(_specimen(0.0), 0.05, 2)
    yield MosaicImage(2, MosaicKind.PREVIEW, 0, (0.0, 0.0), (8.6e-9, 8.6e-9), frames=200), preview
    counts = AcquisitionCounts(
        1075, 1040, 700, 0, 0, 0, 0, 0, 0, 0,
        unplaced_because={Unplaced.NO_POSITION: 21, Unplaced.LATE: 14}, missing_because={Missing.GAP: 20},
    )  # fmt: skip
    yield counts, {}


def _taken(start: int, stop: int) -> Arrays:
    return {"indices": np.arange(start, stop, dtype=np.int32), "positions_px": _snake(400)[start:stop]}


def _snake(frames: int) -> npt.NDArray[np.float32]:
    rows, columns = np.divmod(np.arange(frames), 20)
    columns = np.where(rows % 2, 19 - columns, columns)
    return np.stack([rows * 10.0, columns * 10.0], axis=1).astype(np.float32)


def _scanned(number: int, angle: float) -> Story:
    taken = (number + 1) * FRAMES
    yield AcquisitionCounts(taken, taken, taken - 100, 0, 0, 0, 0, 0, 0, 0), {}
    yield EdgeCounts(taken, taken // 2, 0, 210.0 + 8 * number, 24.0, 61.0 + number, waiting=0), {}
    yield GroundTruthReady(number, GroundTruthSource.PTYCHI, 12.0 + number % 3, FRAMES), {}
    image = _specimen(angle)
    for kind, noise, gain in ((MosaicKind.FIRST_PASS, 0.25, 0.0), (MosaicKind.REFRESHED, 0.12, 2.0)):
        psnr_db = 15.0 + number + gain
        yield PerspectiveScores(number, angle, FRAMES, kind, quality(psnr_db), quality(15.2), [number + 1]), {}
        yield MosaicImage(number, kind, number + 1, (0.0, 0.0), (8.6e-9, 8.6e-9)), _noisy(image, noise, number)
        residual = 0.4 * noise / (1 + 0.2 * number)
        error_rad = 3 * residual if number else None
        yield ResidualScores(number, kind, FRAMES, FRAMES - 30, residual, 1.1 * residual, error_rad), {}
        yield ResidualMapped(number, kind, (0, 0), 16), {"residual": _badly_explained(residual)}
    yield ResidualCalibrated(370 * (number + 1), 2 * (number + 1), 0.82, 1.3, usable=True), {}
    yield MosaicImage(number, MosaicKind.REFERENCE, 0, (0.0, 0.0), (8.6e-9, 8.6e-9)), _noisy(image, 0.0, number)


def _trained(number: int, steps: int, sections: int) -> Story:
    for step in range(steps - 60, steps, 6):
        loss = 0.32 / (1 + step / 120) + 0.02 * np.sin(step)
        yield TrainingStep(step, loss, loss / 3, 2 * loss / 3, 1e-3, 16 * step, 24 * step, 340.0 + step % 17), {}
        yield StepBreakdown(step, 2.5, 61.0 + step % 7, 0.1, 4.2, 8.8), {}
    for rank in (0, 1):
        yield of_rank(rank, RankCounts(90 * (number + 1), 10 * (number + 1), 0, 0, ranks=2)), {}
        size = min(2000, 180 * (number + 1))
        yield of_rank(rank, BufferReport(4000, size, "ucx", 0.995, 0.1, 13.0)), {}
    losses = {seen: 0.3 / (1 + 0.3 * (number + 1)) + 0.004 * (number - seen) for seen in range(number + 1)}
    yield ValidationLoss(number, steps - 1, losses, sum(losses.values()) / len(losses), 0.27), {}
    yield WeightsPublished(number + 1, steps - 1, "aa", None, final=number == sections - 1), {}
    yield WeightsApplied(number + 1), {}


def _parts(said: str) -> Story:
    for part, text in ((Part.ACQUISITION, said), (Part.TRAINER, "2 ranks"), (Part.EDGE, "OpenVINO, batches of 16")):
        yield of(part, PartStatus(PartState.RUNNING, text)), {}
    yield of(Part.DASHBOARD, PartStatus(PartState.RUNNING, "http://127.0.0.1:8421/")), {}


def _specimen(angle_deg: float) -> npt.NDArray[np.float32]:
    y, x = np.mgrid[-1:1:200j, -1:1:260j]
    turned = np.arctan2(y, x) + np.radians(angle_deg)
    star = np.where(np.sin(12 * turned) > 0, 1.0, 0.0) * (np.hypot(y, x) < 0.85) * (np.hypot(y, x) > 0.1)
    return np.asarray(star, np.float32)


def _noisy(image: npt.NDArray[np.float32], noise: float, seed: int) -> Arrays:
    rng = np.random.default_rng(seed)
    phase = -0.6 * image + noise * rng.normal(size=image.shape)
    amplitude = 1.0 - 0.3 * image + 0.4 * noise * rng.normal(size=image.shape)
    return {"phase": phase.astype(np.float32), "amplitude": amplitude.astype(np.float32)}


def _badly_explained(residual: float) -> npt.NDArray[np.float32]:
    y, x = np.mgrid[-1:1:13j, -1:1:17j]
    return np.asarray(residual * (1 + np.exp(-8 * ((y - 0.3) ** 2 + (x + 0.2) ** 2))), np.float32)


def _diffraction() -> npt.NDArray[np.float32]:
    y, x = np.mgrid[-64:64, -64:64]
    rings = np.cos(np.hypot(y, x) / 3.0) ** 2 * 4000 / (1 + (np.hypot(y, x) / 9) ** 3)
    return np.asarray(np.random.default_rng(1).poisson(rings), np.float32)


def classification_story() -> Story:
    """Ten classes in five tasks; three of them have been learnt and the fourth comes."""
    classes = [NAMES[2 * task : 2 * task + 2] for task in range(TASKS)]
    yield of(Part.ACQUISITION, ClassificationInfo("images/fashion-mnist", classes, [IMAGES] * TASKS, 1, 28)), {}
    yield from _parts("streaming images")
    for task in range(TASKS - 1):
        for part in range(8):
            images = IMAGES * (part + 1) // 8
            top1 = min(0.95, 0.35 + 0.07 * part) if task else 0.1 + 0.09 * part
            scores = TaskScores(task, images, images // 6, top1, min(1.0, top1 + 0.15), 1 + task, 2 + task)
            yield of(Part.EDGE, scores), {}
            taken = task * IMAGES + images
            yield AcquisitionCounts(taken, taken, taken, 0, 0, 0, 0, 0, 0, 0), {}
            yield EdgeCounts(taken, 0, 0, 900.0 + 10 * part, 4.0, 9.0), {}
        if task == TASKS - 2:
            return
        yield from _learnt(task)


def _learnt(task: int) -> Story:
    for event, arrays in _trained(task, 60 * (task + 1), TASKS):
        if isinstance(event, TrainingStep):
            event = TrainingStep(  # noqa: PLW2901 (images have one loss)
                event.step, 5 * event.loss, None, None, 1e-3, event.stream_samples, event.rehearsed_samples, 5200.0
            )
        yield event, arrays
    top1 = {seen: 0.92 - 0.05 * (task - seen) for seen in range(task + 1)}
    top5 = {seen: min(1.0, one + 0.07) for seen, one in top1.items()}
    yield of(Part.TRAINER, TaskAccuracies(task, 60 * (task + 1), top1, top5)), {}
