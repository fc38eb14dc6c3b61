"""The far-field geometry of what a file says and what the user has given."""

from __future__ import annotations

from dataclasses import dataclass

from ptychoflow.acquisition.readers.stored import check_geometry
from ptychoflow.acquisition.readers.units import energy_of_wavelength_eV
from ptychoflow.acquisition.scan import Geometry
from ptychoflow.acquisition.source_settings import GeometrySettings
from ptychoflow.streaming.errors import UserError

Pair = tuple[float, float]
SAME = 1e-3
"""Relative difference up to which a setting says what the file says."""
SETTING = "source.geometry"
MINIMUM_FRAME_PX = 2
MAXIMUM_PIXELS = 2**28
"""Of a frame; no detector has so many."""


@dataclass(frozen=True)
class FoundGeometry:
    """What a file says; None for what it does not. Pairs are (y, x)."""

    energy_eV: float | None = None
    detector_distance_m: float | None = None
    detector_pixel_size_m: tuple[float | None, float | None] = (None, None)
    object_pixel_size_m: Pair | None = None
    """Only where the file has no distance, which follows from it."""


def energy_from_wavelength(wavelength_m: float, *, where: str) -> float:
    """Return the photon energy in eV. Raises `UserError` unless the wavelength is positive."""
    if not 0 < wavelength_m < float("inf"):
        raise UserError(f"{where}: the wavelength is {wavelength_m:g} m; it must be positive")
    return energy_of_wavelength_eV(wavelength_m)


def complete_geometry(
    found: FoundGeometry,
    given: GeometrySettings,
    *,
    frame_shape_px: tuple[int, int],
    where: str,
    said_by: str = "file",
) -> tuple[Geometry, list[str]]:
    """Return the geometry, and notes on what did not come from the file.

    Raises:
        UserError: something is neither found nor given (the setting is named), or is no positive number, or there are
            no frames to speak of.
    """
    if min(frame_shape_px) < MINIMUM_FRAME_PX:
        raise UserError(f"{where}: frames of {frame_shape_px} pixels are no diffraction patterns; check the axes")
    if frame_shape_px[0] * frame_shape_px[1] > MAXIMUM_PIXELS:
        raise UserError(
            f"{where}: frames of {frame_shape_px} pixels are larger than any detector; is the file damaged?"
        )
    notes: list[str] = []
    energy_eV = _choose(  # noqa: N806
        "photon energy", found.energy_eV, given.energy_eV, "energy_eV=8000", where=where, said_by=said_by, notes=notes
    )
    pixel_y_m, pixel_x_m = (
        _choose(
            f"detector pixel size along {axis}",
            found.detector_pixel_size_m[place],
            given.detector_pixel_size_m[place] if given.detector_pixel_size_m else None,
            "detector_pixel_size_m=75e-6",
            where=where,
            said_by=said_by,
            notes=notes,
        )
        for place, axis in enumerate("yx")
    )
    distance_m = found.detector_distance_m
    object_pixel_m = given.object_pixel_size_m or (found.object_pixel_size_m if distance_m is None else None)
    if object_pixel_m is not None and given.detector_distance_m is None:
        unit_distance = check_geometry(Geometry(energy_eV, 1.0, (pixel_y_m, pixel_x_m), frame_shape_px), where=where)
        distance_m = object_pixel_m[1] / unit_distance.object_pixel_size_m[1]
        notes.append(
            f"A detector distance of {distance_m:.4g} m follows from object pixels of {object_pixel_m[1]:.4g} m"
        )
        along_y_m = distance_m * unit_distance.object_pixel_size_m[0]
        if not abs(along_y_m - object_pixel_m[0]) <= SAME * object_pixel_m[0]:
            who = "set" if given.object_pixel_size_m else f"the {said_by} says"
            notes.append(
                f"With that distance, object pixels are {along_y_m:.4g} m along y, not {object_pixel_m[0]:.4g} m as "
                f"{who}: check the detector's pixels ({SETTING}.detector_pixel_size_m) and the shape of the frames"
            )
    distance_m = _choose(
        "detector distance",
        distance_m,
        given.detector_distance_m,
        "detector_distance_m=2",
        where=where,
        said_by=said_by,
        notes=notes,
    )
    geometry = Geometry(energy_eV, distance_m, (pixel_y_m, pixel_x_m), frame_shape_px)
    return check_geometry(geometry, where=where), notes


def _choose(
    what: str, found: float | None, given: float | None, example: str, *, where: str, said_by: str, notes: list[str]
) -> float:
    if given is None:
        if found is None:
            in_map = "give either energy or wavelength in a dataset map, or"
            how = in_map if "energy" in what and said_by == "file" else "give it with"
            raise UserError(f"{where}: the {said_by} has no {what}; {how} --set {SETTING}.{example}")
        return found
    if found is not None and not abs(found - given) <= SAME * given:
        notes.append(f"The {what} is {given:g} as set, not {found:g} as the {said_by} says")
    return given
