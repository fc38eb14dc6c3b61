"""What the edge says: frames imaged, stitched images, their quality, and the weights that it infers with."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from ptychoflow.streaming.events.base import Event, Whole


class MosaicKind(StrEnum):
    """Which stitched image an array shows."""

    FIRST_PASS = "first_pass"
    """Every frame imaged once, on arrival, with the weights of that moment."""
    REFRESHED = "refreshed"
    """Imaged again with newer weights."""
    REFERENCE = "reference"
    """The ground truth's image."""
    PREVIEW = "preview"
    """Phase retrieval of what there is of a perspective that is still being scanned; from the acquisition."""


class Channels(msgspec.Struct, frozen=True):
    """One figure per image channel."""

    amplitude: float
    phase: float


class Quality(msgspec.Struct, frozen=True):
    """Image quality against the reference over the area that enough frames cover."""

    psnr_db: Channels
    ssim: Channels
    correlation: Channels
    """Pearson correlation of the pixels."""


class WeightsApplied(Event, tag="weights_applied", frozen=True):
    """An edge now infers with this version."""

    version: Whole


class WeightsKept(Event, tag="weights_kept", frozen=True):
    """Which versions an edge can infer with, be it rolled back; sent whenever they change."""

    versions: list[Whole]


class WeightsRejected(Event, tag="weights_rejected", frozen=True):
    """An edge refused a version and goes on with the one before."""

    version: Whole
    reason: str


class EdgeCounts(Event, tag="edge_counts", frozen=True):
    """The edge's side of the frame ledger, with rates."""

    inferred: Whole
    """Distinct frames imaged on arrival."""
    refreshed: Whole
    """Times that a frame was imaged again with newer weights."""
    duplicates: Whole
    frames_per_s: float
    frame_to_image_p50_ms: float
    """Of recent frames that were imaged in turn, to when their patches are with the threads that stitch, which have
    three batches before them at most; NaN while there are none."""
    frame_to_image_p99_ms: float
    refused: Whole = 0
    """Frames that cannot be imaged: of another size than the scan's, of complex numbers, without a position that a scan
    may have, or after the images of their perspective were finished."""
    unstitched: Whole = 0
    """Frames imaged and left out of the stitched image: no finite patch, or a position where no scan reaches."""
    put_off: Whole = 0
    """Frames that were imaged later than in turn, or will be, because they came too fast."""
    waiting: Whole = 0
    """Frames received and not yet imaged."""
    final: bool = False
    """The part has ended, and counts no more."""


class PerspectiveScores(Event, tag="perspective_scores", frozen=True):
    """Quality of one perspective's stitched image."""

    perspective: Whole
    angle_deg: float
    frames: Whole
    kind: MosaicKind
    quality: Quality
    constant: Quality
    """Of stitching the mean training patch everywhere."""
    model_versions: list[Whole]
    """Versions that contributed to the image, oldest first."""


class HeldOutScores(Event, tag="held_out_scores", frozen=True, omit_defaults=True):  # null would be read as NaN
    """Quality over held-out frames alone: a region, or the last perspective."""

    perspective: Whole
    frames: Whole
    quality: Quality
    constant: Quality
    model_version: Whole
    memoriser: Quality | None = None
    """Of giving each frame the ground truth of that frame of the edge's which looks most alike; None if unknown."""


class ResidualScores(Event, tag="residual_scores", frozen=True, omit_defaults=True):  # null would be read as NaN
    """How badly the frames of an image are explained by what the network made of them; it needs no ground truth."""

    perspective: Whole
    kind: MosaicKind
    frames: Whole
    """In the image."""
    scored: Whole
    """Those looked at, as many as fit into a share of the edge's time."""
    residual: float
    """Median: the share of a frame's energy that patch times probe, propagated, leaves over; 0 is perfect."""
    newest: float | None = None
    """Median of the newest frames; None while there are too few."""
    error_rad: float | None = None
    """Root mean square phase error that goes with it; None while it is not calibrated."""


class ResidualCalibrated(Event, tag="residual_calibrated", frozen=True):
    """What residuals say about the error, learned from the images that have a reference."""

    frames: Whole
    images: Whole
    """That the frames are from."""
    correlation: float
    """Spearman's, of a frame's residual and the image's phase error under its patch."""
    spread: float
    """Errors are within this factor of what is said for two frames in three."""
    usable: bool
    """Whether there are frames enough and residuals rank them, so that an error is said."""


class ResidualMapped(Event, tag="residual_map", frozen=True):
    """Where the frames of an image are explained badly.

    Array: `residual` float32 (y, x), the mean over the frames whose patch lies over a cell; NaN where there is none.
    """

    perspective: Whole
    kind: MosaicKind
    origin_px: tuple[Whole, Whole]
    """Position of the first cell's first pixel."""
    cell_px: Whole
    """Height and width of a cell, in pixels of the image."""


class MosaicImage(Event, tag="mosaic_image", frozen=True):
    """A stitched image. Arrays: `amplitude`, `phase` float32 (y, x), NaN where nothing covers the pixel."""

    perspective: Whole
    kind: MosaicKind
    model_version: Whole
    origin_px: tuple[float, float]
    pixel_size_m: tuple[float, float]
    revision: Whole = 0
    """Counts this image and the areas sent of it."""
    frames: Whole = 0
    """That a preview was made of."""


class MosaicArea(Event, tag="mosaic_area", frozen=True):
    """What changed of a stitched image since the event of the revision before; without that, wait for all of it.

    Arrays: `amplitude`, `phase` float32 (y, x), as in `MosaicImage`, of the rectangle that begins at `origin_px`.
    """

    perspective: Whole
    kind: MosaicKind
    model_version: Whole
    origin_px: tuple[Whole, Whole]
    image_origin_px: tuple[Whole, Whole]
    """Of the whole image, which may have grown."""
    image_shape_px: tuple[Whole, Whole]
    revision: Whole
