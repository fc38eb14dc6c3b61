"""What the acquisition and its ground-truth worker say to each other: one JSON line each, arrays as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.retrieval.ground_truth import GroundTruth, GroundTruthJob
from ptychoflow.acquisition.scan import ObjectImage
from ptychoflow.streaming.messages import GroundTruthSource


class JobMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A job whose arrays lie in `directory`."""

    perspective: int
    directory: str
    target_shape_px: tuple[int, int]
    recorded_origin_px: tuple[float, float] | None


class DoneMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="done"):
    """The ground truth's arrays lie in the job's directory."""

    perspective: int
    origin_px: tuple[float, float]
    source: GroundTruthSource
    seconds: float


class FailedMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="failed"):
    """The job could not be done."""

    perspective: int
    reason: str


AnswerMessage = DoneMessage | FailedMessage

JOB_ARRAYS = ("frames", "positions_px", "probe", "mask")
TRUTH_ARRAYS = ("amplitude", "phase", "void", "reference_amplitude", "reference_phase")
RECORDED = "recorded"


def write_job(job: GroundTruthJob, directory: Path) -> JobMessage:
    """Write the arrays of `job` to `directory`, which is made, and return the message that names them."""
    directory.mkdir(parents=True)
    for name in JOB_ARRAYS:
        _write(directory, name, getattr(job, name))
    if job.recorded is not None:
        _write(directory, RECORDED, job.recorded.values)
    origin = None if job.recorded is None else job.recorded.origin_px
    return JobMessage(job.perspective, str(directory), job.target_shape_px, origin)


def map_frames(message: JobMessage) -> npt.NDArray[Any]:
    """Return the job's frames (n, y, x) mapped from their file, read-only; they stay valid when the file is removed."""
    frames: npt.NDArray[Any] = np.load(Path(message.directory) / "frames.npy", mmap_mode="r", allow_pickle=False)
    return frames


def read_job(message: JobMessage) -> GroundTruthJob:
    """Invert `write_job`."""
    directory = Path(message.directory)
    recorded = None
    if message.recorded_origin_px is not None:
        recorded = ObjectImage(_read(directory, RECORDED), message.recorded_origin_px)
    return GroundTruthJob(
        perspective=message.perspective,
        frames=_read(directory, "frames"),
        positions_px=_read(directory, "positions_px"),
        probe=_read_optional(directory, "probe"),
        mask=_read_optional(directory, "mask"),
        recorded=recorded,
        target_shape_px=message.target_shape_px,
    )


def write_ground_truth(truth: GroundTruth, perspective: int, directory: Path) -> DoneMessage:
    """Write the arrays of `truth` to `directory` and return the message that names them."""
    for name in TRUTH_ARRAYS:
        _write(directory, name, getattr(truth, name))
    return DoneMessage(perspective, truth.origin_px, truth.source, truth.seconds)


def read_ground_truth(message: DoneMessage, directory: Path) -> GroundTruth:
    """Invert `write_ground_truth`; the arrays are in memory, so the files may go."""
    arrays = {name: _read(directory, name) for name in TRUTH_ARRAYS}
    return GroundTruth(origin_px=message.origin_px, source=message.source, seconds=message.seconds, **arrays)


def _write(directory: Path, name: str, array: npt.NDArray[Any] | None) -> None:
    if array is not None:
        np.save(directory / f"{name}.npy", array, allow_pickle=False)


def _read(directory: Path, name: str) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = np.load(directory / f"{name}.npy", allow_pickle=False)
    return array


def _read_optional(directory: Path, name: str) -> npt.NDArray[Any] | None:
    return _read(directory, name) if (directory / f"{name}.npy").exists() else None
