"""Stitched images as files that other programs read."""

from __future__ import annotations

import io

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


def product_file(mosaic: Mosaic, *, path: Path | None, scan: models.Scan | None, run: str) -> bytes:
    """Return an image as an HDF5 file in the layout of a ptychodus product.

    `object` is complex64 (layer, y, x), 0 where nothing covers it. Positions and the probe are those of the scan, as
    far as they are known here; without, there are no positions, and the probe is a single pixel.
    """
    positions = np.zeros((0, 2), np.float32) if path is None else path.positions_px
    probe = np.ones((1, 1, 1), np.complex64) if path is None or path.probe is None else path.probe
    pixel_m = np.array(mosaic.info.pixel_size_m)
    file = io.BytesIO()
    with h5py.File(file, "w") as product:
        product.attrs.update(
            name=f"{run} perspective {mosaic.info.perspective} {mosaic.info.kind}",
            comments=f"stitched by ptychoflow with model version {mosaic.info.model_version}",
            detector_object_distance_m=0.0,
            probe_energy_eV=0.0 if scan is None else scan.energy_eV,
            probe_photon_count=0.0,
            exposure_time_s=0.0,
            mass_attenuation_m2_kg=0.0,
            tomography_angle_deg=0.0 if path is None else path.angle_deg,
        )
        product["probe_position_indexes"] = np.arange(len(positions))
        product["probe_position_y_m"], product["probe_position_x_m"] = (positions * pixel_m).T
        product["probe"] = probe[None]
        product["object"] = transmission(mosaic)[None]
        product["object_layer_spacing_m"] = np.zeros(0)
        product["loss_epochs"], product["loss_values"] = np.zeros(0, np.int64), np.zeros(0)
        centre_m = (np.array(mosaic.info.origin_px) + (np.array(mosaic.shape_px) - 1) / 2) * pixel_m
        for name in ("probe", "object"):
            product[name].attrs.update(pixel_height_m=pixel_m[0], pixel_width_m=pixel_m[1])
        product["object"].attrs.update(center_y_m=centre_m[0], center_x_m=centre_m[1])
    return file.getvalue()


def transmission(mosaic: Mosaic) -> npt.NDArray[np.complex64]:
    """Return amplitude · exp(i · phase), complex64 (y, x), 0 where nothing covers the pixel."""
    amplitude, phase = (np.nan_to_num(mosaic.channels[channel]) for channel in (Channel.AMPLITUDE, Channel.PHASE))
    return np.asarray(amplitude * np.exp(1j * phase), dtype=np.complex64)
