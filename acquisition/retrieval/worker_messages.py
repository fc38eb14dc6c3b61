"""What the acquisition and its ground-truth worker say to each other: one JSON line each, arrays as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.retrieval.ground_truth import GroundTruth, GroundTruthJob
from ptychoflow.acquisition.retrieval.preview import Preview
from ptychoflow.acquisition.retrieval.stored_frames import FrameFile, StoredFrames
from ptychoflow.acquisition.scan import ObjectImage
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.frame_memory import map_frames
from ptychoflow.streaming.kept_array import read_array
from ptychoflow.streaming.messages import GroundTruthSource


class JobMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A job whose arrays lie in `directory`."""

    perspective: int
    directory: str
    frames_path: str
    frames_shape: tuple[int, ...]
    frames_dtype: str
    target_shape_px: tuple[int, int]
    recorded_origin_px: tuple[float, float] | None
    preview: bool = False
    start_origin_px: tuple[float, float] | None = None


class DoneMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="done"):
    """The ground truth's arrays lie in the job's directory."""

    perspective: int
    origin_px: tuple[float, float]
    source: GroundTruthSource
    seconds: float
    epochs: int = 0
    loss: float | None = None


class FailedMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="failed"):
    """The job could not be done."""

    perspective: int
    reason: str


class PreviewedMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="previewed"):
    """A preview is done with; its arrays lie in its job's directory, unless there is none."""

    perspective: int
    frames: int = 0
    origin_px: tuple[float, float] | None = None


AnswerMessage = DoneMessage | FailedMessage | PreviewedMessage

ADVICE = "remove its folder to have this ground truth computed again"
JOB_ARRAYS = ("positions_px", "probe", "mask")
PREVIEW_ARRAYS = ("amplitude", "phase")
TRUTH_ARRAYS = ("amplitude", "phase", "void", "reference_amplitude", "reference_phase")
RECORDED, START = "recorded", "start"
PLACES = "places"
FRAMES = "frames"


def write_job(job: GroundTruthJob, directory: Path, *, preview: bool = False) -> JobMessage:
    """Write the arrays of `job` to `directory`, which is made if need be, and return the message that names them.

    Frames that are in a file already stay there.
    """
    directory.mkdir(parents=True, exist_ok=True)
    frames = job.frames if isinstance(job.frames, StoredFrames) else _store(job.frames, directory)
    _write(directory, PLACES, frames.places)
    for name in JOB_ARRAYS:
        _write(directory, name, getattr(job, name))
    if job.recorded is not None:
        _write(directory, RECORDED, job.recorded.values)
    origin = None if job.recorded is None else job.recorded.origin_px
    return JobMessage(
        perspective=job.perspective,
        directory=str(directory),
        frames_path=str(frames.path),
        frames_shape=frames.mapped.shape,
        frames_dtype=frames.mapped.dtype.str,
        target_shape_px=job.target_shape_px,
        recorded_origin_px=origin,
        preview=preview,
    )


def add_start(message: JobMessage, start: ObjectImage) -> JobMessage:
    """Write what a job starts from beside its other arrays, and return the message that names it too."""
    _write(Path(message.directory), START, start.values)
    return msgspec.structs.replace(message, start_origin_px=start.origin_px)


def read_job(message: JobMessage) -> GroundTruthJob:
    """Invert `write_job`."""
    directory, path = Path(message.directory), Path(message.frames_path)
    recorded = None
    if message.recorded_origin_px is not None:
        recorded = ObjectImage(_read(directory, RECORDED), message.recorded_origin_px)
    start = None
    if message.start_origin_px is not None:
        start = ObjectImage(_read(directory, START), message.start_origin_px)
    return GroundTruthJob(
        perspective=message.perspective,
        frames=StoredFrames(
            path, map_frames(path, message.frames_shape, message.frames_dtype), _read(directory, PLACES)
        ),
        positions_px=_read(directory, "positions_px"),
        probe=_read_optional(directory, "probe"),
        mask=_read_optional(directory, "mask"),
        recorded=recorded,
        target_shape_px=message.target_shape_px,
        start=start,
    )


def write_ground_truth(truth: GroundTruth, perspective: int, directory: Path) -> DoneMessage:
    """Write the arrays of `truth` to `directory` and return the message that names them."""
    for name in TRUTH_ARRAYS:
        _write(directory, name, getattr(truth, name))
    return DoneMessage(perspective, truth.origin_px, truth.source, truth.seconds, truth.epochs, truth.loss)


def read_ground_truth(message: DoneMessage, directory: Path) -> GroundTruth:
    """Invert `write_ground_truth`; the arrays are in memory, so the files may go.

    Raises:
        UserError: a file is damaged.
    """
    arrays = {name: _read(directory, name) for name in TRUTH_ARRAYS}
    amplitude, phase, void = (arrays[name] for name in ("amplitude", "phase", "void"))
    reference = arrays["reference_amplitude"], arrays["reference_phase"]
    if (
        (amplitude.ndim, reference[0].ndim) != (3, 2)
        or (amplitude.shape, (len(amplitude),), reference[0].shape) != (phase.shape, void.shape, reference[1].shape)
        or any(array.dtype.kind != "f" for array in (amplitude, phase, *reference))
        or void.dtype != np.bool_
    ):
        raise UserError(f"{directory} is damaged: its arrays do not fit together; {ADVICE}")
    return GroundTruth(
        origin_px=message.origin_px,
        source=message.source,
        seconds=message.seconds,
        epochs=message.epochs,
        loss=message.loss,
        **arrays,
    )


def write_preview(preview: Preview, directory: Path) -> PreviewedMessage:
    """Write the arrays of `preview` to `directory` and return the message that names them."""
    for name in PREVIEW_ARRAYS:
        _write(directory, name, getattr(preview, name))
    return PreviewedMessage(preview.perspective, preview.frames, preview.origin_px)


def read_preview(message: PreviewedMessage, directory: Path) -> Preview | None:
    """Invert `write_preview`; None where there is none."""
    if message.origin_px is None:
        return None
    amplitude, phase = (_read(directory, name) for name in PREVIEW_ARRAYS)
    return Preview(message.perspective, message.frames, amplitude, phase, message.origin_px)


def _store(frames: npt.NDArray[np.generic], directory: Path) -> StoredFrames:
    height, width = frames.shape[1:]
    file = FrameFile(directory / FRAMES, (height, width))
    file.append(frames)
    return file.frames()


def _write(directory: Path, name: str, array: npt.NDArray[Any] | None) -> None:
    if array is not None:
        np.save(directory / f"{name}.npy", array, allow_pickle=False)


def _read(directory: Path, name: str) -> npt.NDArray[Any]:
    return read_array(directory / f"{name}.npy", advice=ADVICE)


def _read_optional(directory: Path, name: str) -> npt.NDArray[Any] | None:
    return _read(directory, name) if (directory / f"{name}.npy").exists() else None
