"""The orientation of frames that a short phase retrieval speaks for, where their shadows do not tell.

A small part of the scan is reconstructed under every orientation in question. Some frames from its middle are left out
and then predicted from what was found: only under the right orientation do the other frames tell what they show. The
frames alone decide, whatever probe it starts from: the file's, or several estimates.

The retrievals run in a process of their own that begins fresh (`trial_process`): their library starts threads, and
sets what this whole process would keep.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from ptychoflow.acquisition.frame_check import readable_frames, usable
from ptychoflow.acquisition.orientation import Orientation
from ptychoflow.acquisition.preprocess import FilePerspective, FrameTransform
from ptychoflow.acquisition.probe_estimate import GatheredFrames, Turn, probe_of_fit
from ptychoflow.acquisition.readers.stored import probe_diameter_px
from ptychoflow.acquisition.retrieval.engines import check_installed
from ptychoflow.acquisition.retrieval.settings import RetrievalSettings
from ptychoflow.acquisition.retrieval.trial_messages import (
    PredictedMessage,
    TrialAnswer,
    TrialMessage,
    TrialPart,
    write_part,
    write_trial,
)
from ptychoflow.acquisition.source_settings import PreprocessSettings
from ptychoflow.streaming.child import Child, ChildEnded
from ptychoflow.streaming.device import Device, gpu_to_see
from ptychoflow.streaming.errors import UserError

Positions = npt.NDArray[np.float64]
Probe = npt.NDArray[np.complex64]

MODULE = "ptychoflow.acquisition.retrieval.trial_process"
LIMIT_S = 300.0
"""For all retrievals together, which take seconds to a minute on a machine that does nothing else."""
FIRST_EPOCHS, MORE_EPOCHS = 10, 40
CLEAR_AT_ONCE = 0.6
"""With the first epochs the smallest error must be at most so many times the next one; else each orientation goes on
from the probe that did best."""
BATCH = 10
MOST_FRAMES, LEAST_FRAMES = 49, 25
PIXELS = MOST_FRAMES * 128 * 128
"""Of all frames together; of larger frames fewer are taken."""
SIDE_PX = 128
"""Larger frames are cut to this, or to what holds the beam."""
BEAM_SHARE = 0.995
MOST_SIDE_PX = 512
LEAST_STEP = 0.1
"""Of the probe's diameter, between two of the positions chosen: many frames at one place tell no more than one."""
ONE_LEFT_OUT_IN = 4
INNER_SHARE = 0.5
"""The frames left out are among so many of those nearest to the middle."""


def decide_orientation(
    perspective: FilePerspective,
    found: Orientation,
    *,
    on_progress: Callable[[int, int], None],
) -> Orientation:
    """Return `found` with the errors of the orientations that are near each other.

    Blocks for seconds to a minute, `LIMIT_S` at most. `on_progress` is told before each phase retrieval how many are
    done, of how many.

    Raises:
        UserError: the engine is not installed, its process did not do what it was asked in time, or too few frames
            show anything.
    """
    settings = RetrievalSettings(batch_size=BATCH, device=Device.CPU)
    check_installed(settings.source)
    gathered = perspective.gather_frames()
    if gathered is None:
        raise UserError("orientation: too few frames show anything")
    part, crop = take_part(perspective, gathered)
    starts = {
        turn: [crop.apply_to_probe(probe) for probe in _starting_probes(perspective, gathered, found, turn)]
        for turn in found.near_each_other
    }
    with _Retrievals(part, settings, on_progress) as retrievals:
        errors = retrievals.errors(starts, FIRST_EPOCHS)
        if not _told(errors, CLEAR_AT_ONCE):
            best = {turn: [probes[int(np.argmin(errors[turn]))]] for turn, probes in starts.items()}
            errors = retrievals.errors(best, MORE_EPOCHS)
    return replace(found, errors={turn: min(of_turn) for turn, of_turn in errors.items()})


class _Retrievals:
    """Short phase retrievals of one part of a scan, in a process that ends with this object."""

    def __init__(self, part: TrialPart, settings: RetrievalSettings, on_progress: Callable[[int, int], None]) -> None:
        self._part = part
        self._on_progress = on_progress
        self._deadline_s = time.monotonic() + LIMIT_S
        self._folder = tempfile.TemporaryDirectory(prefix="ptychoflow-orientation-")
        write_part(part, Path(self._folder.name))
        arguments = [settings.model_dump_json(), self._folder.name]
        environment = gpu_to_see(settings.device, settings.gpu, setting="retrieval.gpu")
        self._child = Child(MODULE, arguments, threads=settings.threads, environment=environment)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._child.close()
        self._folder.cleanup()

    def errors(self, starts: dict[Turn, list[Probe]], epochs: int) -> dict[Turn, list[float]]:
        """Return the error of every turn from every probe it starts from."""
        of, done = sum(map(len, starts.values())), 0
        errors: dict[Turn, list[float]] = {turn: [] for turn in starts}
        for turn, probes in starts.items():
            for probe in probes:
                self._on_progress(done, of)
                errors[turn].append(self._error(turn, probe, epochs))
                done += 1
        self._on_progress(done, of)
        return errors

    def _error(self, turn: Turn, probe: Probe, epochs: int) -> float:
        # Over the field of view, as pixels of the detector are square: the frames need not be.
        shape = self._part.mask.shape
        write_trial(turn.apply(self._part.positions_px / shape) * shape, probe, Path(self._folder.name))
        self._child.send(msgspec.json.encode(TrialMessage(epochs)))
        try:
            line = self._child.receive(max(self._deadline_s - time.monotonic(), 0.0))
        except ChildEnded as end:
            raise UserError(f"orientation: the process of the short phase retrievals is gone: {end}") from end
        if line is None:
            raise UserError(f"orientation: the short phase retrievals did not end within {LIMIT_S:.0f} s")
        answer = msgspec.json.decode(line, type=TrialAnswer)
        if isinstance(answer, PredictedMessage):
            return np.inf if answer.error is None else answer.error
        raise UserError(f"orientation: a short phase retrieval failed: {answer.reason}")


def _told(errors: dict[Turn, list[float]], share: float) -> bool:
    first, *others = sorted(map(min, errors.values()))
    return not others or first <= share * others[0]


def _starting_probes(
    perspective: FilePerspective, gathered: GatheredFrames, found: Orientation, turn: Turn
) -> Iterator[Probe]:
    """Yield the file's probe and that of both axes mirrored, or estimates of both defocuses and of none."""
    if perspective.has_own_probe and perspective.probe is not None:
        yield perspective.probe
        yield np.roll(perspective.probe[:, ::-1, ::-1], _even(perspective.probe.shape[1:]), axis=(1, 2)).conj()
        return
    fit = found.fits[turn]
    for diameter in (fit.diameter, -fit.diameter, 0.0):
        yield probe_of_fit(gathered, replace(fit, diameter=diameter), perspective.mask).probe


def _even(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return by how much a mirrored image is moved so that its pixel (y // 2, x // 2) stays."""
    return tuple(1 - length % 2 for length in shape)


def _crop_px(mean: npt.NDArray[np.float64]) -> tuple[int, int]:
    """Return the shape about the middle of a mean frame (y, x) that holds the beam, 128 px at least."""
    height, width = mean.shape
    middle = height // 2, width // 2
    for side in range(SIDE_PX, min(MOST_SIDE_PX, max(height, width)), SIDE_PX // 2):
        rows, columns = (slice(max(centre - side // 2, 0), centre + side // 2) for centre in middle)
        if mean[rows, columns].sum() > BEAM_SHARE * mean.sum():
            return min(side, height), min(side, width)
    return min(MOST_SIDE_PX, height), min(MOST_SIDE_PX, width)


def take_part(perspective: FilePerspective, gathered: GatheredFrames) -> tuple[TrialPart, FrameTransform]:
    """Read the frames about the place where they differ most from each other; return how they were cut as well."""
    crop = FrameTransform(PreprocessSettings(crop_px=_crop_px(gathered.mean)), perspective.geometry.frame_shape_px)
    most = int(np.clip(PIXELS // np.prod(crop.shape), LEAST_FRAMES, MOST_FRAMES))
    diameter_px = LEAST_STEP * min(probe_diameter_px(perspective.probe)) if perspective.probe is not None else 0.0
    frames, numbers = [], []
    region = _compact_region(perspective.positions_px, _busiest_place(gathered), least_step_px=diameter_px)
    for index, frame in readable_frames(perspective, region):
        if usable(frame)[0]:
            frames.append(crop.apply(frame)[0].astype(np.float32))
            numbers.append(index)
        if len(numbers) == most:
            break
    if len(numbers) < LEAST_FRAMES:
        raise UserError(f"orientation: only {len(numbers)} frames about one place can be used; it takes {LEAST_FRAMES}")
    ratio = np.array(crop.shape) / perspective.geometry.frame_shape_px
    positions_px = perspective.positions_px[numbers] * ratio
    mask = np.zeros(crop.shape, bool) if perspective.mask is None else np.asarray(crop.apply(perspective.mask), bool)
    return TrialPart(np.array(frames), positions_px, _left_out(positions_px), mask), crop


def _busiest_place(gathered: GatheredFrames) -> Positions:
    shadows, _ = gathered.shadows()
    strength = np.asarray(np.sum(shadows**2, axis=(1, 2), dtype=np.float64))
    places = gathered.positions_px
    _, nearest = KDTree(places).query(places, k=min(9, len(places)))
    return np.asarray(places[int(np.argmax(strength[np.asarray(nearest)].mean(axis=1)))])


def _compact_region(positions_px: Positions, centre_px: Positions, *, least_step_px: float) -> Iterator[int]:
    """Yield indices of frames from a place outwards, none of them closer to another than `least_step_px`."""
    order = np.argsort(np.linalg.norm(positions_px - centre_px, axis=1), kind="stable")
    taken: list[Positions] = []
    for index in order.tolist():
        here = positions_px[index]
        if taken and np.linalg.norm(np.array(taken) - here, axis=1).min() <= least_step_px:
            continue
        taken.append(here)
        yield index


def _left_out(positions_px: Positions) -> npt.NDArray[np.bool_]:
    """Return which frames are left out: some of the inner ones, so that the others show the whole of what they do."""
    away = np.linalg.norm(positions_px - positions_px.mean(axis=0), axis=1)
    inner = np.argsort(away)[: int(INNER_SHARE * len(away))]
    left_out = np.zeros(len(away), bool)
    left_out[inner[::ONE_LEFT_OUT_IN]] = True
    low, high = positions_px[~left_out].min(axis=0), positions_px[~left_out].max(axis=0)
    left_out &= ((positions_px >= low) & (positions_px <= high)).all(axis=1)
    return left_out
