"""What a reader finds in a file for one perspective, and the checks that it must pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.position_check import what_is_wrong
from ptychoflow.acquisition.scan import Geometry, ObjectImage
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.set_option import set_option

MINIMUM_ENERGY_EV = 10.0
MAXIMUM_ENERGY_EV = 1e6
LONGEST_PIXEL = 30.0
"""Ratio of a detector pixel's sides."""
USUAL_PIXEL_M = (1e-6, 1e-3)


@dataclass(frozen=True)
class StoredPerspective:
    """One perspective as it is in the file, in the units and axes of `ptychoflow.acquisition.scan`."""

    where: str
    """File and group, for error messages."""
    index: int
    angle_deg: float
    geometry: Geometry
    positions_px: npt.NDArray[np.float64]
    frame_count: int
    dtype: np.dtype[np.generic]
    read: Callable[[int, int], npt.NDArray[np.generic]]
    """Frames start to stop, (stop - start, y, x)."""
    probe: npt.NDArray[np.complex64] | None = None
    """(mode, y, x)."""
    mask: npt.NDArray[np.bool_] | None = None
    ground_truth: ObjectImage | None = None
    notes: list[str] = field(default_factory=list)
    numbers: npt.NDArray[np.intp] | None = None
    """Of the frames in the file, where some are left out."""
    said_by: str = "file"
    """Where this comes from, in a word: "the file has no probe"."""


def check(stored: StoredPerspective, *, position_scale: float = 1.0) -> None:
    """Raise `UserError` for what cannot be a far-field ptychographic scan, its positions scaled as they will be."""
    _check_frames(stored)
    _check_positions(stored)
    if (wrong := what_is_wrong(stored.positions_px * position_scale, stored.geometry.frame_shape_px)) is not None:
        _fail(stored, wrong)
    _check_illumination(stored)


def _fail(stored: StoredPerspective, text: str) -> NoReturn:
    raise UserError(f"{stored.where}: {text}")


def _check_frames(stored: StoredPerspective) -> None:
    if stored.dtype.kind == "c":
        _fail(stored, "the frames are complex; give measured intensities (counts), which are real")
    if stored.dtype.kind not in "iuf":
        _fail(stored, f"the frames are of type {stored.dtype}; give integer or floating-point counts")
    if stored.frame_count == 0:
        _fail(stored, "the scan has no frames")


def _check_positions(stored: StoredPerspective) -> None:
    positions = stored.positions_px
    if len(positions) != stored.frame_count:
        _fail(
            stored,
            f"there are {stored.frame_count} frames but {len(positions)} positions; every frame needs its own position",
        )
    broken = np.flatnonzero(~np.isfinite(positions).all(axis=1))
    if len(broken):
        first = broken[0] if stored.numbers is None else stored.numbers[broken[0]]
        more = ", …" if len(broken) > 1 else ""
        _fail(
            stored,
            f"{len(broken)} positions are not finite numbers, the first one of frame {first}; repair it, or leave "
            f"such frames out with {set_option('source.drop_frames', f'[{first}{more}]')}"
            f"{'' if stored.numbers is None else ', beside those that are left out already'}",
        )
    if len(positions) > 1 and np.ptp(positions, axis=0).max() == 0:
        _fail(stored, "all positions are the same; ptychography needs a scan")


def check_geometry(geometry: Geometry, *, where: str) -> Geometry:
    """Return `geometry` if lengths can be computed from it; raise `UserError` if not."""
    quantities = {
        "photon energy": geometry.energy_eV,
        "detector distance": geometry.detector_distance_m,
        "detector pixel size along y": geometry.detector_pixel_size_m[0],
        "detector pixel size along x": geometry.detector_pixel_size_m[1],
    }
    for name, value in quantities.items():
        if not (np.isfinite(value) and value > 0):
            raise UserError(f"{where}: the {name} is {value:g}; it must be a positive number")
    _check_pixels(*geometry.detector_pixel_size_m, where=where)
    if not MINIMUM_ENERGY_EV <= geometry.energy_eV <= MAXIMUM_ENERGY_EV:
        raise UserError(
            f"{where}: a photon energy of {geometry.energy_eV:g} eV is outside {MINIMUM_ENERGY_EV:g} to "
            f"{MAXIMUM_ENERGY_EV:g} eV; check its unit (CXI: joule) and that it is not the storage ring's"
        )
    return geometry


def _check_pixels(pixel_y_m: float, pixel_x_m: float, *, where: str) -> None:
    """Refuse pixels so long that one side must be in another unit than the other."""
    if max(pixel_y_m, pixel_x_m) <= LONGEST_PIXEL * min(pixel_y_m, pixel_x_m):
        return
    usual = [size for size in (pixel_y_m, pixel_x_m) if USUAL_PIXEL_M[0] <= size <= USUAL_PIXEL_M[1]]
    likely = f"{usual[0]:g}" if len(usual) == 1 else "[Y,X]"
    raise UserError(
        f"{where}: detector pixels are {pixel_y_m:g} m along y and {pixel_x_m:g} m along x; one is in another unit. "
        f"Give them with {set_option('source.geometry.detector_pixel_size_m', likely)}"
    )


def _check_illumination(stored: StoredPerspective) -> None:
    for name, array in (("probe", stored.probe), ("mask", stored.mask)):
        if array is not None and array.shape[-2:] != stored.geometry.frame_shape_px:
            _fail(
                stored,
                f"the {name} has {array.shape[-2:]} pixels but the frames have {stored.geometry.frame_shape_px}",
            )
    if stored.probe is None:
        return
    if not np.isfinite(stored.probe).all() or not np.any(stored.probe):
        _fail(stored, "the probe is zero or not finite; leave it out and it is estimated from the frames")
    if (fresnel := fresnel_number(stored.probe, stored.geometry)) > 1:
        _fail(
            stored,
            f"unsupported geometry: the Fresnel number of the probe is {fresnel:.3g}, a near-field scan; "
            "only far-field scans (below 1) can be processed",
        )


def probe_diameter_px(probe: npt.NDArray[np.complexfloating]) -> tuple[float, float]:
    """Return four standard deviations of the probe's intensity along y and x, the beam diameter of ISO 11146."""
    intensity = np.sum(np.abs(probe.astype(np.complex128)) ** 2, axis=0)
    intensity /= intensity.sum()
    return _four_sigma(intensity.sum(axis=1)), _four_sigma(intensity.sum(axis=0))


def _four_sigma(profile: npt.NDArray[np.float64]) -> float:
    place = np.arange(len(profile))
    mean = np.sum(profile * place)
    return float(4 * np.sqrt(np.sum(profile * (place - mean) ** 2)))


def fresnel_number(probe: npt.NDArray[np.complexfloating], geometry: Geometry) -> float:
    """Return a²/(λ·z) for the larger diameter a of the probe."""
    diameters = np.array(probe_diameter_px(probe)) * geometry.object_pixel_size_m
    return float(diameters.max() ** 2 / (geometry.wavelength_m * geometry.detector_distance_m))
