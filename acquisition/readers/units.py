"""Units of what files hold, and how they are written there: the one place that every reader asks."""

from __future__ import annotations

import math
from enum import Enum, StrEnum
from typing import Any

import numpy as np

from ptychoflow.acquisition.scan import ELEMENTARY_CHARGE_C, PLANCK_J_S, SPEED_OF_LIGHT_M_S


class LengthUnit(StrEnum):
    """Unit of a length."""

    METRE = "m"
    CENTIMETRE = "cm"
    MILLIMETRE = "mm"
    MICROMETRE = "um"
    NANOMETRE = "nm"
    ANGSTROM = "angstrom"
    PICOMETRE = "pm"

    @property
    def metres(self) -> float:
        """Return the unit in metres."""
        sizes = {"m": 1.0, "cm": 1e-2, "mm": 1e-3, "um": 1e-6, "nm": 1e-9, "angstrom": 1e-10, "pm": 1e-12}
        return sizes[self.value]


class EnergyUnit(StrEnum):
    """Unit of an energy."""

    JOULE = "J"
    ELECTRONVOLT = "eV"
    KILOELECTRONVOLT = "keV"
    MEGAELECTRONVOLT = "MeV"

    @property
    def electronvolts(self) -> float:
        """Return the unit in electronvolts."""
        return {"J": 1 / ELEMENTARY_CHARGE_C, "eV": 1.0, "keV": 1e3, "MeV": 1e6}[self.value]


class AngleUnit(StrEnum):
    """Unit of an angle."""

    DEGREE = "deg"
    RADIAN = "rad"

    @property
    def degrees(self) -> float:
        """Return the unit in degrees."""
        return {"deg": 1.0, "rad": 180 / math.pi}[self.value]


class PixelUnit(StrEnum):
    """Unit of a position that is counted in pixels of the object."""

    PIXEL = "px"


Unit = LengthUnit | EnergyUnit | AngleUnit | PixelUnit


class Quantity(Enum):
    """What a number measures, and so which units it may have."""

    LENGTH = (LengthUnit,)
    ENERGY = (EnergyUnit,)
    ANGLE = (AngleUnit,)
    POSITION = (LengthUnit, PixelUnit)

    @property
    def units(self) -> list[str]:
        """Return the units that it may have, as they are written in settings."""
        return [unit.value for kind in self.value for unit in kind]


# In lower case, because files do not agree on capitals: what a prefix could be confused with is no photon's energy
# and no length of an experiment.
_SPELLINGS: dict[Unit, tuple[str, ...]] = {
    LengthUnit.METRE: ("m", "metre", "metres", "meter", "meters"),
    LengthUnit.CENTIMETRE: ("cm", "centimetre", "centimetres", "centimeter", "centimeters"),
    LengthUnit.MILLIMETRE: ("mm", "millimetre", "millimetres", "millimeter", "millimeters"),
    LengthUnit.MICROMETRE: (
        *("um", "\N{GREEK SMALL LETTER MU}m", "micron", "microns"),
        *("micrometre", "micrometres", "micrometer", "micrometers"),
    ),
    LengthUnit.NANOMETRE: ("nm", "nanometre", "nanometres", "nanometer", "nanometers"),
    LengthUnit.ANGSTROM: ("a", "å", "ang", "angstrom", "angstroms", "ångström", "ångstrom"),
    LengthUnit.PICOMETRE: ("pm", "picometre", "picometres", "picometer", "picometers"),
    EnergyUnit.JOULE: ("j", "joule", "joules"),
    EnergyUnit.ELECTRONVOLT: ("ev", "electronvolt", "electronvolts", "electron volt", "electron volts"),
    EnergyUnit.KILOELECTRONVOLT: ("kev", "kiloelectronvolt", "kiloelectronvolts"),
    EnergyUnit.MEGAELECTRONVOLT: ("mev", "megaelectronvolt", "megaelectronvolts"),
    AngleUnit.DEGREE: ("deg", "degree", "degrees", "°"),
    AngleUnit.RADIAN: ("rad", "radian", "radians"),
    PixelUnit.PIXEL: ("px", "pixel", "pixels"),
}
_UNITS = {name: unit for unit, names in _SPELLINGS.items() for name in names}


def as_text(value: Any) -> str:
    """Return an attribute's value as text: text, bytes, or an array of one of them; empty for anything else."""
    values = np.asarray(value).reshape(-1) if not isinstance(value, (str, bytes)) else [value]
    if len(values) != 1:
        return ""
    text = values[0]
    if isinstance(text, bytes):
        text = text.decode("utf-8", errors="replace")
    return str(text).strip("\0 ") if isinstance(text, str) else ""


def parse_unit(text: str, quantity: Quantity) -> Unit | None:
    """Return the unit that `text` means for `quantity`, in whatever case and spelling; None if it is not one of it."""
    spelling = text.strip().replace("\N{MICRO SIGN}", "\N{GREEK SMALL LETTER MU}").replace("\N{ANGSTROM SIGN}", "Å")
    unit = _UNITS.get(spelling.lower())
    return unit if isinstance(unit, quantity.value) else None


def scale(unit: Unit) -> float:
    """Return how many metres, electronvolts, degrees or pixels the unit is."""
    if isinstance(unit, LengthUnit):
        return unit.metres
    if isinstance(unit, EnergyUnit):
        return unit.electronvolts
    return unit.degrees if isinstance(unit, AngleUnit) else 1.0


def energy_of_wavelength_eV(wavelength_m: float) -> float:  # noqa: N802
    """Return the photon energy of a wavelength; not a number where there is none."""
    if not (math.isfinite(wavelength_m) and wavelength_m > 0):
        return math.nan
    return PLANCK_J_S * SPEED_OF_LIGHT_M_S / ELEMENTARY_CHARGE_C / wavelength_m
