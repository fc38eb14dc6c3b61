"""Where files of unknown layout keep what: a dataset map, written in TOML by the user or shipped with the project.

Example, for a file with amplitudes, whose positions are in a text file beside it::

    [frames]
    path = "/diffamp"
    values = "amplitudes"

    [positions]
    file = "{name}_positions.txt"
    column_y = 2                      # from 0, or the column's name
    column_x = 1
    unit = "um"

    [geometry]
    wavelength = {path = "/lambda", unit = "nm"}
    detector_distance = {path = "/detector", attribute = "distance"}      # the unit as the file states it
    detector_pixel_size = {value = 75, unit = "um"}

What the file does not hold may be left out of `[geometry]` and given as `source.geometry`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, Self

from pydantic import NonNegativeInt, model_validator

from ptychoflow.acquisition.readers.units import AngleUnit, EnergyUnit, LengthUnit, PixelUnit
from ptychoflow.streaming.settings import Settings

Column = NonNegativeInt | str
Sign = Literal[1, -1]


class FrameAxis(StrEnum):
    """An axis of the dataset of frames."""

    FRAME = "frame"
    ROW = "row"
    """Of a scan grid, in place of `frame`."""
    COLUMN = "column"
    """Of a scan grid, in place of `frame`; it is walked first."""
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


class Elsewhere(Settings):
    """Something that may be kept in another file."""

    file: str | None = None
    """Another file than the scan's, beside it or with its whole path. `{stem}` stands for the scan file's name without
    its ending, `{name}` for that without `_master`; a `*` must fit one file only."""


class Number(Elsewhere):
    """One number, from a dataset or an attribute, or given here."""

    path: str | None = None
    """Dataset with one number (or with the same one for every frame); with `attribute`, what carries that."""
    attribute: str | None = None
    """Attribute with the number, of `path` or else of the file."""
    value: float | None = None
    """The number itself."""
    unit_path: str | None = None
    """Dataset with the name of the unit, which counts if it is there."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.path is None and self.attribute is None) == (self.value is None):
            raise ValueError("give either path or value")
        return self


class Length(Number):
    """A length."""

    unit: LengthUnit | None = None
    """Unit of the number; without, that of the dataset's attribute `units`. It counts before that."""


class Energy(Number):
    """An energy."""

    unit: EnergyUnit | None = None
    """Unit of the number; without, that of the dataset's attribute `units`."""


class Angle(Number):
    """An angle."""

    unit: AngleUnit = AngleUnit.DEGREE
    """Unit of the number, where the file states none."""


class FramesMap(Elsewhere):
    """The frames."""

    path: str | tuple[str, ...]
    """Dataset with three axes, or with four of a scan grid; or several datasets whose frames follow one another, by
    name or by a `*` in the last part of the path (in the order of the numbers in their names)."""
    alternatives: tuple[str, ...] = ()
    """Where the frames are instead if `path` is not there; the first that is there counts."""
    axes: tuple[FrameAxis, ...] | None = None
    """Order of the axes in the file; without, (frame, y, x) or (row, column, y, x)."""
    values: FrameValues = FrameValues.COUNTS
    """What is stored."""
    zero_frequency: ZeroFrequency = ZeroFrequency.CENTRE
    """Where the direct beam is."""

    @model_validator(mode="after")
    def _each_axis_once(self) -> Self:
        image = [FrameAxis.Y, FrameAxis.X]
        allowed = (sorted([FrameAxis.FRAME, *image]), sorted([FrameAxis.ROW, FrameAxis.COLUMN, *image]))
        if self.axes is not None and sorted(self.axes) not in allowed:
            raise ValueError("axes must name frame, y and x once each (or row, column, y and x)")
        return self


class IndexMap(Settings):
    """Which frame each row of positions belongs to; the rows of one frame are averaged."""

    path: str | None = None
    """Dataset with the frame's number, one for each row."""
    column: Column | None = None
    """Column with the frame's number, in the same table as the positions."""
    origin: int
    """The number of the first frame."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.path is None) == (self.column is None):
            raise ValueError("give either path or column")
        return self


class PositionsMap(Elsewhere):
    """The positions: a table with a column for each axis, or one dataset for each axis.

    A table is a dataset, a text file (columns apart by commas or blanks, with or without a line of names), a `.npy`
    file, or an array of an `.npz` file.
    """

    path: str | None = None
    """Dataset (frames, columns), or (2, frames); array of an `.npz` file."""
    columns: Literal["yx", "xy"] | None = None
    """What the first two columns are; `xy` unless said otherwise."""
    column_y: Column | None = None
    """Column of y, from 0 or by name."""
    column_x: Column | None = None
    """Column of x, from 0 or by name."""
    path_y: str | None = None
    """Dataset (frames,) of y positions."""
    path_x: str | None = None
    """Dataset (frames,) of x positions."""
    unit: LengthUnit | PixelUnit | None = None
    """Unit of the positions; `px` is object pixels. Without, that of the dataset's attribute `units`."""
    sign_y: Sign = 1
    """-1 when the file's y grows against the rows of the frames."""
    sign_x: Sign = 1
    """-1 when the file's x grows against the columns of the frames."""
    foreshortened_x: bool = False
    """Whether x runs along a stage that turns with the rotation angle, so that the beam sees it shortened by the
    angle's cosine."""
    index: IndexMap | None = None
    """Which frame each row belongs to; without, row k is that of frame k."""

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        separate = (self.path_y is not None, self.path_x is not None)
        table = self.path is not None or (self.file is not None and not any(separate))
        if separate not in {(True, True), (False, False)} or separate[0] == table:
            raise ValueError("give either path, or both path_y and path_x, or a file with a table")
        if (self.column_y is None) != (self.column_x is None):
            raise ValueError("give both column_y and column_x, or neither")
        if self.columns is not None and self.column_y is not None:
            raise ValueError("give either columns, or column_y and column_x")
        return self


class GeometryMap(Settings):
    """The far-field geometry. What is left out must be given as `source.geometry`."""

    energy: Energy | None = None
    """Photon energy; or give the wavelength."""
    wavelength: Length | None = None
    """Photon wavelength; or give the energy."""
    detector_distance: Length | None = None
    """Specimen to detector."""
    detector_pixel_size: Length | None = None
    """Detector pixel along x, and along y unless that is given."""
    detector_pixel_size_y: Length | None = None
    """Detector pixel along y."""

    @model_validator(mode="after")
    def _one_energy(self) -> Self:
        if self.energy is not None and self.wavelength is not None:
            raise ValueError("give either energy or wavelength")
        return self


class ImageMap(Elsewhere):
    """A dataset that holds an image."""

    path: str
    """Dataset; its last two axes are (y, x)."""


class MaskMap(ImageMap):
    """The mask of bad pixels."""

    good: int = 0
    """Value of pixels to use; all others are ignored."""
    optional: bool = False
    """Whether files without it are read, too."""


class DatasetMap(Settings):
    """Where everything is."""

    frames: FramesMap
    """The frames."""
    positions: PositionsMap | None = None
    """The scan positions; without, they must be given as `source.positions`."""
    geometry: GeometryMap = GeometryMap()
    """Energy, distance and pixel size."""
    probe: ImageMap | None = None
    """Starting probe, complex."""
    mask: MaskMap | None = None
    """Bad pixels."""
    angle_deg: Angle | None = None
    """Rotation angle."""
