"""Where an HDF5 file of unknown layout keeps what: a dataset map, written by the user in TOML.

Example, for a file with amplitudes and positions in micrometres::

    [frames]
    path = "/diffamp"
    values = "amplitudes"

    [positions]
    path = "/points"                  # (2, frames) or (frames, 2)
    columns = "xy"
    unit = "um"

    [geometry]
    wavelength = {path = "/lambda_nm", unit = "nm"}
    detector_distance = {path = "/z_m", unit = "m"}
    detector_pixel_size = {value = 75, unit = "um"}
"""

from __future__ import annotations

import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Literal, Self

from pydantic import ValidationError, model_validator

from ptychoflow.acquisition.scan import ELEMENTARY_CHARGE_C
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.settings import Settings


class LengthUnit(StrEnum):
    """Unit of a length."""

    METRE = "m"
    MILLIMETRE = "mm"
    MICROMETRE = "um"
    NANOMETRE = "nm"
    ANGSTROM = "angstrom"

    @property
    def metres(self) -> float:
        """Return the unit in metres."""
        return {"m": 1.0, "mm": 1e-3, "um": 1e-6, "nm": 1e-9, "angstrom": 1e-10}[self.value]


class EnergyUnit(StrEnum):
    """Unit of an energy."""

    JOULE = "J"
    ELECTRONVOLT = "eV"
    KILOELECTRONVOLT = "keV"

    @property
    def electronvolts(self) -> float:
        """Return the unit in electronvolts."""
        return {"J": 1 / ELEMENTARY_CHARGE_C, "eV": 1.0, "keV": 1e3}[self.value]


class FrameAxis(StrEnum):
    """An axis of the dataset of frames."""

    FRAME = "frame"
    Y = "y"
    X = "x"


class FrameValues(StrEnum):
    """What the dataset of frames holds."""

    COUNTS = "counts"
    AMPLITUDES = "amplitudes"
    """Square roots of counts."""


class ZeroFrequency(StrEnum):
    """Where the direct beam is in a stored frame."""

    CENTRE = "centre"
    CORNER = "corner"
    """At pixel (0, 0), as a discrete Fourier transform leaves it."""


class Number(Settings):
    """One number, from a dataset or given here."""

    path: str | None = None
    """Dataset with one number."""
    value: float | None = None
    """The number itself."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.path is None) == (self.value is None):
            raise ValueError("give either path or value")
        return self


class Length(Number):
    """A length."""

    unit: LengthUnit
    """Unit of the number."""


class Energy(Number):
    """An energy."""

    unit: EnergyUnit
    """Unit of the number."""


class FramesMap(Settings):
    """The frames."""

    path: str
    """Dataset with three axes."""
    axes: tuple[FrameAxis, FrameAxis, FrameAxis] = (FrameAxis.FRAME, FrameAxis.Y, FrameAxis.X)
    """Order of the axes in the file."""
    values: FrameValues = FrameValues.COUNTS
    """What is stored."""
    zero_frequency: ZeroFrequency = ZeroFrequency.CENTRE
    """Where the direct beam is."""

    @model_validator(mode="after")
    def _each_axis_once(self) -> Self:
        if set(self.axes) != set(FrameAxis):
            raise ValueError("axes must name frame, y and x once each")
        return self


class PositionsMap(Settings):
    """The positions: one dataset with two or three columns (or rows), or one dataset for each axis."""

    path: str | None = None
    """Dataset (frames, 2 or 3), or the transpose of it."""
    columns: Literal["yx", "xy"] = "xy"
    """What the first two columns are."""
    path_y: str | None = None
    """Dataset (frames,) of y positions."""
    path_x: str | None = None
    """Dataset (frames,) of x positions."""
    unit: LengthUnit | Literal["px"]
    """Unit of the positions; `px` is object pixels."""

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        separate = (self.path_y is not None, self.path_x is not None)
        if separate not in {(True, True), (False, False)} or separate[0] == (self.path is not None):
            raise ValueError("give either path, or both path_y and path_x")
        return self


class GeometryMap(Settings):
    """The far-field geometry."""

    energy: Energy | None = None
    """Photon energy; or give the wavelength."""
    wavelength: Length | None = None
    """Photon wavelength; or give the energy."""
    detector_distance: Length
    """Specimen to detector."""
    detector_pixel_size: Length
    """Detector pixel along x, and along y unless that is given."""
    detector_pixel_size_y: Length | None = None
    """Detector pixel along y."""

    @model_validator(mode="after")
    def _one_energy(self) -> Self:
        if (self.energy is None) == (self.wavelength is None):
            raise ValueError("give either energy or wavelength")
        return self


class ImageMap(Settings):
    """A dataset that holds an image."""

    path: str
    """Dataset; its last two axes are (y, x)."""


class MaskMap(ImageMap):
    """The mask of bad pixels."""

    good: int = 0
    """Value of pixels to use; all others are ignored."""


class DatasetMap(Settings):
    """Where everything is."""

    frames: FramesMap
    """The frames."""
    positions: PositionsMap
    """The scan positions."""
    geometry: GeometryMap
    """Energy, distance and pixel size."""
    probe: ImageMap | None = None
    """Starting probe, complex."""
    mask: MaskMap | None = None
    """Bad pixels."""
    angle_deg: Number | None = None
    """Rotation angle."""


def load_dataset_map(path: Path) -> DatasetMap:
    """Read a dataset map. Raises `UserError` with the place of the first mistake."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: the dataset map cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: the dataset map is not valid TOML: {error}") from error
    try:
        return DatasetMap.model_validate(content)
    except ValidationError as error:
        mistake = error.errors()[0]
        place = ".".join(str(part) for part in mistake["loc"]) or "top level"
        raise UserError(f"{path}: mistake in the dataset map at {place}: {mistake['msg']}") from error
