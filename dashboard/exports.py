"""Stitched images as files that other programs read."""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace

import h5py
import numpy as np
import numpy.typing as npt
import tifffile

from ptychoflow.dashboard import models
from ptychoflow.dashboard.mosaics import Channel, Mosaic
from ptychoflow.dashboard.probe import Path


def npy_file(values: npt.NDArray[np.generic]) -> bytes:
    """Return an array as a NumPy file."""
    file = io.BytesIO()
    np.save(file, values, allow_pickle=False)
    return file.getvalue()


def tiff_file(mosaic: Mosaic, channel: Channel) -> bytes:
    """Return one channel as OME-TIFF, float32 (y, x), NaN where nothing covers it, with its pixel size."""
    height_m, width_m = mosaic.info.pixel_size_m
    pixels: dict[str, object] = {
        "axes": "YX",
        "Name": f"perspective {mosaic.info.perspective} {mosaic.info.kind} {channel}",
        "PhysicalSizeY": height_m * 1e9,
        "PhysicalSizeYUnit": "nm",
        "PhysicalSizeX": width_m * 1e9,
        "PhysicalSizeXUnit": "nm",
    }
    file = io.BytesIO()
    tifffile.imwrite(file, mosaic.channels[channel], ome=True, metadata=pixels, photometric="minisblack")
    return file.getvalue()


@dataclass(frozen=True)
class Scanned:
    """What is known of how an image was scanned; 0 where something is not known."""

    indices: npt.NDArray[np.integer] = field(default_factory=lambda: np.zeros(0, np.int64))
    """Of the frames, one for each position."""
    positions_px: npt.NDArray[np.floating] = field(default_factory=lambda: np.zeros((0, 2)))
    """(n, 2) as (y, x)."""
    probe: npt.NDArray[np.complex64] = field(default_factory=lambda: np.ones((1, 1, 1), np.complex64))
    """(mode, y, x)."""
    angle_deg: float = 0.0
    energy_eV: float = 0.0
    detector_distance_m: float = 0.0
    photons: float = 0.0
    """In a frame without an object."""


def product_file(mosaic: Mosaic, *, path: Path | None, scan: models.Scan | None, run: str) -> bytes:
    """Return an image as a ptychodus product, with positions and probe of the scan as far as they are known here.

    Without, there are no positions, and the probe is a single pixel.
    """
    scanned = Scanned(energy_eV=0.0 if scan is None else scan.energy_eV)
    if path is not None:
        scanned = replace(scanned, indices=path.indices, positions_px=path.positions_px, angle_deg=path.angle_deg)
        if path.probe is not None:
            scanned = replace(scanned, probe=path.probe)
    file = io.BytesIO()
    with h5py.File(file, "w") as product:
        write_product(product, mosaic, scanned, run=run)
    return file.getvalue()


def write_product(product: h5py.File, mosaic: Mosaic, scanned: Scanned, *, run: str) -> None:
    """Write an image in the layout of a ptychodus product.

    `object` is complex64 (layer, y, x), 0 where nothing covers it.
    """
    pixel_m = np.array(mosaic.info.pixel_size_m)
    product.attrs.update(
        name=f"{run} perspective {mosaic.info.perspective} {mosaic.info.kind}",
        comments=f"stitched by ptychoflow with model version {mosaic.info.model_version}",
        detector_object_distance_m=scanned.detector_distance_m,
        probe_energy_eV=scanned.energy_eV,
        probe_photon_count=scanned.photons,
        exposure_time_s=0.0,
        mass_attenuation_m2_kg=0.0,
        tomography_angle_deg=scanned.angle_deg,
    )
    product["probe_position_indexes"] = scanned.indices.astype(np.int64)
    product["probe_position_y_m"], product["probe_position_x_m"] = (scanned.positions_px * pixel_m).T
    product["probe"] = scanned.probe[None]
    product["object"] = transmission(mosaic)[None]
    product["object_layer_spacing_m"] = np.zeros(0)
    product["loss_epochs"], product["loss_values"] = np.zeros(0, np.int64), np.zeros(0)
    centre_m = (np.array(mosaic.info.origin_px) + (np.array(mosaic.shape_px) - 1) / 2) * pixel_m
    for name in ("probe", "object"):
        product[name].attrs.update(pixel_height_m=pixel_m[0], pixel_width_m=pixel_m[1])
    product["object"].attrs.update(center_y_m=centre_m[0], center_x_m=centre_m[1])


def transmission(mosaic: Mosaic) -> npt.NDArray[np.complex64]:
    """Return amplitude · exp(i · phase), complex64 (y, x), 0 where nothing covers the pixel."""
    amplitude, phase = (np.nan_to_num(mosaic.channels[channel]) for channel in (Channel.AMPLITUDE, Channel.PHASE))
    return np.asarray(amplitude * np.exp(1j * phase), dtype=np.complex64)
