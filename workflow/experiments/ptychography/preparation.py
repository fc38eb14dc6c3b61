"""From a source to a dataset: frames are read, ground truth is computed, and every frame gets its role."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.frame_check import UNUSABLE, chosen_as_streamed, ranges_in_words, usable
from ptychoflow.acquisition.retrieval.engines import RETRIEVING
from ptychoflow.acquisition.retrieval.ground_truth import (
    GroundTruth,
    GroundTruthJob,
    compute_ground_truth,
    starting_probe,
)
from ptychoflow.acquisition.retrieval.settings import RetrievalSettings
from ptychoflow.acquisition.retrieval.void import is_void, squared_phase_rad2
from ptychoflow.acquisition.retrieval.worker import GroundTruthResult, GroundTruthWorker
from ptychoflow.acquisition.roles import assign_roles
from ptychoflow.acquisition.scan import Perspective, Scan
from ptychoflow.acquisition.source_settings import ReplaySettings, RoleSettings, SimulationSettings
from ptychoflow.acquisition.sources import open_scan
from ptychoflow.inference_edge.stitching.quality import ReferenceImage
from ptychoflow.streaming.errors import UserError, writing
from ptychoflow.streaming.kept_array import read_array
from ptychoflow.streaming.messages import FrameRole
from ptychoflow.workflow.experiments.ptychography.dataset import PerspectiveSamples, is_written, write_perspective
from ptychoflow.workflow.experiments.ptychography.settings import (
    EarlierScan,
    PtychographyExperiment,
    TrainingSetSettings,
)
from ptychoflow.workflow.logs import stderr_console
from ptychoflow.workflow.progress_bar import ProgressBar

log = logging.getLogger(__name__)

FRAMES_FILE, PATCHES_FILE = "cropped_exp_diffr_data.npy", "patched_psi.npy"
JOBS = "jobs"
"""Folder of what a ground-truth worker is given."""
POLL_S = 1.0
FindGroundTruth = Callable[[GroundTruthJob], GroundTruth]
SEED_STEP = 1000
"""Between the seeds of repetitions and of scans, so that none meets another's."""


def prepare(settings: PtychographyExperiment, *, seed: int, folder: Path) -> None:
    """Write the dataset of a seed; perspectives that are there already are kept. Blocks; shows its progress.

    The seed chooses a simulation's specimens and noise, and which frames validate.

    Raises:
        UserError: a source that cannot be used, or a full disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with writing(f"the samples to {folder}"), ProgressBar(stderr_console()) as progress:
        for done, total in _written(settings, seed, folder):
            progress.show(f"seed {seed}: ground truth of perspectives", done, total)


def prepare_earlier(settings: PtychographyExperiment, earlier: EarlierScan, *, seed: int, folder: Path) -> None:
    """Write the dataset of the scan that was learnt before, as `prepare` does; nothing of it is held out."""
    alone = {
        "source": earlier.source,
        "retrieval": settings.like_first(earlier.retrieval),
        "later": (),
        "roles": settings.nothing_held_out,
    }
    prepare(settings.model_copy(update=alone), seed=seed, folder=folder)


@dataclass(frozen=True)
class _Part:
    """A scan of the experiment, and what becomes of its frames."""

    scan: Scan
    roles: RoleSettings
    retrieval: RetrievalSettings
    seed: int
    """Chooses the frames that validate."""


def _written(settings: PtychographyExperiment, seed: int, folder: Path) -> Iterator[tuple[int, int]]:
    """Yield (perspectives done, perspectives)."""
    if isinstance(settings.source, TrainingSetSettings):
        yield from _from_training_set(settings, settings.source, seed=seed, folder=folder)
        return
    with ExitStack() as stack:
        parts = list(_open_parts(settings, settings.source, seed=seed))
        for part in parts:
            stack.enter_context(closing(part.scan))
        total, number = sum(len(part.scan) for part in parts), 0
        for part in parts:
            with _finding(part.retrieval, folder / JOBS) as find:
                for perspective in part.scan:
                    if not is_written(number, folder):
                        write_perspective(_with_ground_truth(perspective, part, find, number=number), folder)
                    number += 1
                    yield number, total


def _open_parts(
    settings: PtychographyExperiment, first: SimulationSettings | ReplaySettings, *, seed: int
) -> Iterator[_Part]:
    yield _Part(open_scan(_seeded(first, seed)), settings.roles, settings.retrieval, seed)
    for place, later in enumerate(settings.later, 1):
        scan = open_scan(_seeded(later.source, seed))
        retrieval = settings.like_first(later.retrieval)
        yield _Part(scan, settings.nothing_held_out, retrieval, seed + place * SEED_STEP)


def _seeded(source: SimulationSettings | ReplaySettings, seed: int) -> SimulationSettings | ReplaySettings:
    """Return a simulation with specimens and noise of its own for every seed."""
    if isinstance(source, ReplaySettings):
        return source
    phases = tuple(phase.model_copy(update={"seed": phase.seed + SEED_STEP * seed}) for phase in source.specimens)
    return source.model_copy(update={"seed": source.seed + seed, "specimens": phases})


def _with_ground_truth(
    perspective: Perspective, part: _Part, find: FindGroundTruth, *, number: int
) -> PerspectiveSamples:
    frames, good = _usable_frames(perspective, number=number)
    positions_px = perspective.positions_px[good]
    target_shape_px = part.retrieval.target_shape_for(perspective.geometry.frame_shape_px)
    job = GroundTruthJob(
        perspective=number,
        frames=frames,
        positions_px=positions_px,
        probe=perspective.probe,
        mask=perspective.mask,
        recorded=perspective.ground_truth,
        target_shape_px=target_shape_px,
    )
    truth = find(job)
    roles = assign_roles(
        part.roles,
        perspective.positions_px,
        perspective=perspective.index,
        perspectives=len(part.scan),
        target_shape_px=target_shape_px,
        seed=part.seed,
    )[good]
    # Void frames teach nothing, but an image needs them.
    roles[truth.void & (roles != FrameRole.HELD_OUT)] = FrameRole.EXCLUDED
    kept = roles != FrameRole.EXCLUDED
    return PerspectiveSamples(
        index=number,
        angle_deg=perspective.angle_deg,
        samples={
            "diffraction": frames[kept],
            "amplitude": truth.amplitude[kept],
            "phase": truth.phase[kept],
        },
        roles=roles[kept],
        positions_px=positions_px[kept],
        reference=ReferenceImage(truth.reference_amplitude, truth.reference_phase, truth.origin_px),
        probe=starting_probe(job),
        mask=perspective.mask,
        ground_truth_s=truth.seconds,
    )


@contextmanager
def _finding(retrieval: RetrievalSettings, jobs_dir: Path) -> Iterator[FindGroundTruth]:
    """Give what finds ground truth; phases are retrieved in a process of its own, which is started with the first job.

    What retrieves them takes all GPUs that it sees, and changes torch's defaults and all random generators.
    """
    if retrieval.source not in RETRIEVING:
        yield lambda job: compute_ground_truth(job, retrieval)
        return
    with ExitStack() as stack:
        worker = cache(lambda: stack.enter_context(GroundTruthWorker(retrieval, spool_dir=jobs_dir)))
        yield lambda job: _retrieved(job, worker())


def _retrieved(job: GroundTruthJob, worker: GroundTruthWorker) -> GroundTruth:
    worker.submit(job)
    while not isinstance(result := worker.poll(POLL_S), GroundTruthResult):
        continue
    if result.ground_truth is None:
        raise UserError(f"perspective {job.perspective} has no ground truth: {result.error}")
    return result.ground_truth


def _usable_frames(perspective: Perspective, *, number: int) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.bool_]]:
    """Return the frames that can be used, and which they are, bool (n,); of others the log tells, as a run does.

    Raises:
        UserError: none can.
    """
    (batch,) = perspective.batches(len(perspective))
    for note in batch.notes:
        log.warning("perspective %d: %s", number, note)
    good = usable(batch.frames)
    if not good.any():
        raise UserError(f"perspective {number}: all frames are {UNUSABLE}; take it out of the scan")
    if not good.all():
        numbers = ranges_in_words(batch.indices[~good].tolist())
        log.warning(
            "perspective %d: %d frames %s are set aside: %s", number, np.count_nonzero(~good), UNUSABLE, numbers
        )
    return chosen_as_streamed(batch.frames, good), good


def training_set_scans(source: TrainingSetSettings) -> list[Path]:
    """Return the folders of the scans of a training set, in order; raise UserError if there are none."""
    scans = sorted(path.parent for path in (source.path / "train").glob(f"*/{FRAMES_FILE}"))
    if not scans:
        raise UserError(f"{source.path}: no train/SCAN/{FRAMES_FILE} in it; source.path names the folder above train")
    return scans


def load_training_set_scan(scan: Path) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.generic]]:
    """Return frames and patches of a scan of a training set, mapped; raise UserError if they are no such pair."""
    frames, patches = _load(scan / FRAMES_FILE), _load(scan / PATCHES_FILE)
    if len(frames) != len(patches) or frames.ndim != 3 or patches.ndim != 3:
        raise UserError(f"{scan}: frames {frames.shape} and patches {patches.shape} do not belong together")
    return frames, patches


def _from_training_set(
    settings: PtychographyExperiment, source: TrainingSetSettings, *, seed: int, folder: Path
) -> Iterator[tuple[int, int]]:
    scans = training_set_scans(source)
    for index, scan in enumerate(scans):
        if not is_written(index, folder):
            frames, patches = load_training_set_scan(scan)
            write_perspective(_of_training_set(frames, patches, settings, seed=seed, place=(index, len(scans))), folder)
        yield index + 1, len(scans)


def _of_training_set(
    frames: npt.NDArray[np.generic],
    patches: npt.NDArray[np.generic],
    settings: PtychographyExperiment,
    *,
    seed: int,
    place: tuple[int, int],
) -> PerspectiveSamples:
    index, perspectives = place
    objects = patches.astype(np.complex64)
    phase = np.angle(objects)
    finite = np.isfinite(frames).all(axis=(1, 2)) & np.isfinite(objects).all(axis=(1, 2))
    if not finite.all():
        left_out = ranges_in_words(np.flatnonzero(~finite).tolist())
        log.warning("perspective %d: samples with values that are no numbers are left out: %s", index, left_out)
    void = np.zeros(len(frames), bool)
    void[finite] = is_void(squared_phase_rad2(phase[finite]), settings.retrieval.void_threshold)
    roles = assign_roles(
        settings.roles,
        np.zeros((len(frames), 2)),
        perspective=index,
        perspectives=perspectives,
        target_shape_px=(patches.shape[1], patches.shape[2]),
        seed=seed,
    )
    kept = finite & ~void
    return PerspectiveSamples(
        index=index,
        angle_deg=0.0,
        samples={
            "diffraction": frames[kept],
            "amplitude": np.abs(objects[kept]).astype(np.float16),
            "phase": phase[kept].astype(np.float16),
        },
        roles=roles[kept],
        positions_px=None,
        reference=None,
    )


def _load(path: Path) -> npt.NDArray[np.generic]:
    try:
        return read_array(path, advice="copy it again", mapped=True)
    except FileNotFoundError as error:
        raise UserError(f"{path} cannot be read: {error}") from error
