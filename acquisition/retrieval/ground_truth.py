"""Ground truth of one perspective: an amplitude and a phase patch for every frame, and one reference image.

Source of the object, then the common gauge, then patches; every source goes the same way.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.probe_estimate import GatheredFrames, choose_frames, estimate_probe
from ptychoflow.acquisition.repeats import find_places
from ptychoflow.acquisition.retrieval.engine import Measurement, Reconstruction
from ptychoflow.acquisition.retrieval.engines import RETRIEVING, make_engine
from ptychoflow.acquisition.retrieval.gauge import find_gauge
from ptychoflow.acquisition.retrieval.illumination import well_lit
from ptychoflow.acquisition.retrieval.patches import cut_patches
from ptychoflow.acquisition.retrieval.settings import RetrievalSettings
from ptychoflow.acquisition.retrieval.stored_frames import StoredFrames
from ptychoflow.acquisition.retrieval.void import is_void, squared_phase_rad2
from ptychoflow.acquisition.scan import ObjectImage
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.messages import GroundTruthSource

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GroundTruthJob:
    """What is known of one perspective. Rows of `frames` and `positions_px` belong together."""

    perspective: int
    frames: npt.NDArray[np.generic] | StoredFrames
    """Counts (n, y, x), zero frequency at pixel (y // 2, x // 2)."""
    positions_px: npt.NDArray[np.float64]
    """(n, 2) as (y, x)."""
    probe: npt.NDArray[np.complex64] | None
    """Starting probe (mode, y, x); None has it estimated from the frames."""
    mask: npt.NDArray[np.bool_] | None
    """(y, x), True for pixels that must be ignored."""
    recorded: ObjectImage | None
    """The object as recorded or simulated, in any gauge."""
    target_shape_px: tuple[int, int]
    """Shape of the central patch of each frame."""
    start: ObjectImage | None = None
    """What phase retrieval starts from, in any gauge; None starts from void."""


@dataclass(frozen=True)
class GroundTruth:
    """Ground truth in the common gauge (`ptychoflow.acquisition.retrieval.gauge`), one row per frame of the job."""

    amplitude: npt.NDArray[np.float16]
    """(n, target y, target x)."""
    phase: npt.NDArray[np.float16]
    """(n, target y, target x), radians within ±π."""
    void: npt.NDArray[np.bool_]
    """(n,), True where the mean squared phase is below the threshold."""
    reference_amplitude: npt.NDArray[np.float32]
    """(y, x) over all pixels that belong to some frame's patch, and the rest of their bounding box."""
    reference_phase: npt.NDArray[np.float32]
    """Like `reference_amplitude`, radians within ±π."""
    origin_px: tuple[float, float]
    """Position of the reference's pixel (0, 0)."""
    source: GroundTruthSource
    seconds: float
    """Wall time of phase retrieval; 0 for an object that was recorded or simulated."""
    epochs: int = 0
    """Of phase retrieval."""
    loss: float | None = None
    """See `Reconstruction.loss`."""


def compute_ground_truth(
    job: GroundTruthJob, settings: RetrievalSettings, *, enough_loss: float | None = None
) -> GroundTruth:
    """Return the ground truth of one perspective. Blocks for as long as phase retrieval takes.

    With `enough_loss` it takes no more epochs once its loss is not above this.

    Raises:
        UserError: the source asked for has no object, an object that leaves frames uncovered, or no engine; or there is
            no frame.
    """
    if not len(job.frames):
        raise UserError("none of its frames can be used")
    started_s = time.monotonic()
    found = _find_object(job, settings, enough_loss)
    seconds = time.monotonic() - started_s if settings.source in RETRIEVING else 0.0
    image = in_common_gauge(found, job, settings)
    patches = _patches(image, job)
    phase = np.angle(patches)
    reference = crop_to_patches(image, job)
    return GroundTruth(
        amplitude=np.abs(patches).astype(np.float16),
        phase=phase.astype(np.float16),
        void=is_void(squared_phase_rad2(phase), settings.void_threshold),
        reference_amplitude=np.abs(reference.values),
        reference_phase=np.angle(reference.values),
        origin_px=reference.origin_px,
        source=settings.source,
        seconds=seconds,
        epochs=found.epochs,
        loss=found.loss,
    )


def _find_object(job: GroundTruthJob, settings: RetrievalSettings, enough_loss: float | None) -> Reconstruction:
    probe = starting_probe(job)
    if settings.source in RETRIEVING:
        measurement = replace(measurement_of(job, probe), object_image=job.start, enough_loss=enough_loss)
        return make_engine(settings).reconstruct(measurement)
    if job.recorded is None:
        raise UserError(
            f"perspective {job.perspective} carries no {settings.source.value} object: "
            f"set retrieval.source to {GroundTruthSource.PTYCHI.value}"
        )
    return Reconstruction(job.recorded, probe)


def starting_probe(job: GroundTruthJob) -> npt.NDArray[np.complex64]:
    """Return the job's probe, or one that is estimated from its frames."""
    if job.probe is not None:
        return job.probe
    gathered = GatheredFrames()
    for index in choose_frames(job.positions_px).tolist():
        gathered.add(job.frames[index], job.positions_px[index])
    return estimate_probe(gathered, job.mask).probe


def measurement_of(job: GroundTruthJob, probe: npt.NDArray[np.complex64]) -> Measurement:
    """Return what phase retrieval is given: repeated exposures of a position as one frame."""
    places = find_places(job.positions_px)
    if not places.repeats:
        return Measurement(job.frames[:], job.positions_px, probe, job.mask)
    log.info("perspective %d: exposures averaged to %d positions", job.perspective, len(places.first))
    positions_px = places.average_positions(job.positions_px)
    return Measurement(places.average_frames(job.frames[:]), positions_px, probe, job.mask)


def in_common_gauge(found: Reconstruction, job: GroundTruthJob, settings: RetrievalSettings) -> ObjectImage:
    """Return the object in the common gauge, with void where too little light fell."""
    image = found.object_image
    lit = well_lit(image, found.probe, job.positions_px, minimum_illumination=settings.minimum_illumination)
    try:
        gauge = find_gauge(image.values, lit)
    except ValueError as error:
        raise UserError(f"ground truth of perspective {job.perspective}: {error}") from error
    log.info("perspective %d: void covers %.0f %% of the lit area", job.perspective, 100 * gauge.void_share)
    values = gauge.apply(image.values)
    if settings.source is not GroundTruthSource.SIMULATED:
        values = np.where(lit, values, np.complex64(1))
    return ObjectImage(values, image.origin_px)


def _patches(image: ObjectImage, job: GroundTruthJob) -> npt.NDArray[np.complex64]:
    try:
        return cut_patches(image, job.positions_px, job.target_shape_px)
    except ValueError as error:
        raise UserError(f"ground truth of perspective {job.perspective}: {error}; use a smaller target") from error


def crop_to_patches(image: ObjectImage, job: GroundTruthJob) -> ObjectImage:
    """Cut `image` to the whole pixels that some patch touches."""
    target = np.asarray(job.target_shape_px)
    corners = job.positions_px - image.origin_px - target // 2
    # an object may begin just at the first patch, but for rounding
    top, left = np.maximum(np.floor(corners.min(axis=0)).astype(int), 0)
    bottom, right = np.ceil(corners.max(axis=0)).astype(int) + target
    origin_y, origin_x = image.origin_px
    return ObjectImage(image.values[top:bottom, left:right], (origin_y + float(top), origin_x + float(left)))
