"""What viewers are told: columns of the curves, and rows made of events."""

from __future__ import annotations

from ptychoflow.dashboard import models
from ptychoflow.dashboard.mosaics import Mosaic
from ptychoflow.dashboard.probe import NewestFrame
from ptychoflow.streaming.events import Quality

SCORE_COLUMNS = ("psnr_amplitude_db", "psnr_phase_db", "ssim_amplitude", "ssim_phase")
SERIES_COLUMNS = {
    "training": ("step", "loss", "loss_amplitude", "loss_phase", "learning_rate", "samples_per_s"),
    "validation": ("step", "mean_over_seen", "constant"),
    "first_pass": ("model_version", *SCORE_COLUMNS, *(f"constant_{name}" for name in SCORE_COLUMNS)),
    "refreshed": ("model_version", *SCORE_COLUMNS, *(f"constant_{name}" for name in SCORE_COLUMNS)),
    "edge": ("frames_per_s", "frame_to_image_p50_ms", "frame_to_image_p99_ms"),
    "buffer": ("size", "capacity", "hidden_fraction"),
    "tasks": ("task", "top1", "top5"),
    "steps": ("step", "load_ms", "train_ms", "buffer_wait_ms", "populate_ms", "augment_ms"),
}


def figures_of(quality: Quality) -> models.Figures:
    """Return what viewers are told about the quality of an image."""
    return models.Figures(
        psnr_amplitude_db=quality.psnr_db.amplitude,
        psnr_phase_db=quality.psnr_db.phase,
        ssim_amplitude=quality.ssim.amplitude,
        ssim_phase=quality.ssim.phase,
        correlation_amplitude=quality.correlation.amplitude,
        correlation_phase=quality.correlation.phase,
    )


def probe_row(newest: NewestFrame) -> models.Probe:
    """Return what viewers are told about the newest frame."""
    return models.Probe(
        perspective=newest.info.perspective,
        index=newest.info.index,
        binned_px=newest.info.binned_px,
        shape_px=(newest.diffraction.shape[0], newest.diffraction.shape[1]),
        brightest=float(newest.diffraction.max()),
        revision=newest.revision,
    )


def mosaic_row(mosaic: Mosaic) -> models.MosaicRow:
    """Return what viewers are told about an image."""
    info = mosaic.info
    return models.MosaicRow(
        perspective=info.perspective,
        kind=info.kind,
        model_version=info.model_version,
        revision=mosaic.revision,
        shape_px=mosaic.shape_px,
        origin_px=info.origin_px,
        pixel_size_m=info.pixel_size_m,
    )
