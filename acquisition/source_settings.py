"""Configuration of scan sources: replay of a file or simulation, and what each frame is used for."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from ptychoflow.acquisition.readers.dataset_map import PositionsMap
from ptychoflow.streaming.settings import Settings

PixelPair = tuple[PositiveInt, PositiveInt]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
PositiveFraction = Annotated[float, Field(gt=0.0, le=1.0)]
PhaseRange = Annotated[float, Field(gt=0.0, lt=3.14)]


class PreprocessSettings(Settings):
    """How the frames and positions of a real file are brought to the project's conventions.

    Frames are first transposed, then flipped about the beam centre, then cropped about it.
    """

    crop_px: PixelPair | None = None
    """Shape (y, x) to cut out around the beam centre, after transposing; None keeps the frame's shape."""
    centre_px: tuple[NonNegativeInt, NonNegativeInt] | None = None
    """Pixel (y, x) of the direct beam in the frame as stored; None means (y // 2, x // 2)."""
    zero_frequency_in_corner: bool = False
    """Frames and masks are stored with zero frequency at pixel (0, 0); it is moved to the middle before all else."""
    transpose: bool = False
    """Exchange the frame's y and x axes."""
    flip_y: bool = False
    """Mirror frames along y."""
    flip_x: bool = False
    """Mirror frames along x."""
    mask: Path | None = None
    """`.npy` file with the shape of a stored frame; what is not zero is ignored, in addition to the file's own mask."""
    invert_mask: bool = False
    """The file's own mask marks the good pixels, not the bad ones."""
    find_bad_pixels: bool = True
    """Ignore pixels that hold a marker, a negative value or no number in every frame looked at, and hot ones."""
    saturation_counts: PositiveFloat | None = None
    """A pixel that reaches this value in any of the frames looked at is ignored in all frames."""
    swap_positions: bool = False
    """Exchange the y and x of positions, before the signs are applied."""
    position_sign_y: Literal[1, -1] = 1
    """-1 when y positions grow in the other direction than rows."""
    position_sign_x: Literal[1, -1] = 1
    """-1 when x positions grow in the other direction than columns."""
    position_scale: PositiveFloat = 1.0
    """Factor on all positions, to correct their unit or calibration."""

    @property
    def changes_frame_axes(self) -> bool:
        """Whether pixels are moved or cut."""
        return bool(self.crop_px or self.centre_px or self.transpose or self.flip_y or self.flip_x)

    @property
    def changes_positions(self) -> bool:
        """Whether positions are changed other than by a crop's change of the object pixel."""
        signs = (self.position_sign_y, self.position_sign_x)
        return self.swap_positions or signs != (1, 1) or self.position_scale != 1.0


def _one_or_two(value: Any) -> Any:
    """Let one number stand for both axes."""
    return (value, value) if isinstance(value, int | float) and not isinstance(value, bool) else value


LengthPair = Annotated[tuple[PositiveFloat, PositiveFloat], BeforeValidator(_one_or_two)]


class GeometrySettings(Settings):
    """Geometry that a file does not hold, or holds wrong: what is given here counts."""

    energy_eV: PositiveFloat | None = None
    """Photon energy."""
    detector_distance_m: PositiveFloat | None = None
    """Specimen to detector."""
    detector_pixel_size_m: LengthPair | None = None
    """Detector pixel (y, x), or one number for both."""
    object_pixel_size_m: LengthPair | None = None
    """Object pixel (y, x), or one number for both; the detector distance follows from it where that is not known."""


class ShippedMap(StrEnum):
    """A dataset map that comes with the project, in `acquisition/readers/maps/`."""

    HXN = "hxn"
    """NSLS-II HXN, one file with amplitudes (`/diffamp`)."""
    HXN_RAW = "hxn-raw"
    """NSLS-II HXN, one file with `/diff_data` and `/scan`."""
    NANOMAX = "nanomax"
    """MAX IV NanoMAX, frames and positions in one file."""
    VELOCIPROBE = "velociprobe"
    """APS Velociprobe, Eiger master with a text file of positions."""
    POLAR = "polar"
    """APS POLAR, frames with a file of softGlueZynq samples."""
    LAMNI = "lamni"
    """APS LamNI, frames with a `.dat` file of positions."""


class ProbeUse(StrEnum):
    """What is done with the probe that a file holds."""

    AS_STORED = "as_stored"
    """It is where phase retrieval starts; it must have as many pixels as the frames."""
    SAME_PIXEL = "same_pixel"
    """Its pixel is that of the object: it is cut, or padded with zeros, to the shape of the frames."""
    SAME_FIELD = "same_field"
    """It covers the same field of view as the frames: it is cut or padded in the plane of the detector."""
    IGNORE = "ignore"
    """It is left out, and a probe is estimated from the frames."""


class FrameChoice(StrEnum):
    """Which frames are used when there are more frames than positions, or more positions than frames."""

    ALL = "all"
    """The scan is refused."""
    FIRST = "first"
    """The first ones of both: what is too many at the end is left out."""
    LAST = "last"
    """The last ones of both: what is too many at the beginning is left out."""


class FrameAxes(StrEnum):
    """Order of the last two axes of the stored frames."""

    YX = "yx"
    XY = "xy"


FrameRange = tuple[NonNegativeInt, NonNegativeInt]


class ReplaySettings(Settings):
    """Replay of a recorded scan."""

    kind: Literal["replay"] = "replay"
    path: Path | tuple[Path, ...]
    """A scan in one of the known formats, or any HDF5 file together with `dataset_map`. Several files are perspectives
    of one scan, in the order of their angles, or else of their names."""
    dataset_map: Annotated[ShippedMap | Path, Field(union_mode="left_to_right")] | None = None
    """Where files of another layout keep what: the name of a map that is shipped, or a TOML file; see
    `acquisition/readers/dataset_map.py`."""
    map_values: dict[str, Any] = Field(default_factory=dict)
    """Keys of the dataset map that are added or replaced, such as `map_values.positions.column_y = 2`."""
    companion: str | None = None
    """The other file of a scan that is kept in two (frames and positions), where its name does not tell; beside the
    first or with its whole path, `{stem}` standing for the first one's name without its ending."""
    links_to: tuple[Path, ...] = ()
    """Folders that HDF5 files may take data from, besides their own folder and those below it: by external links,
    virtual datasets or external storage. Name only what may be seen on the page."""
    geometry: GeometrySettings = GeometrySettings()
    """Energy, distance and pixel sizes that the file does not hold."""
    positions: PositionsMap | None = None
    """Where the positions are, for files without them or in place of the file's own."""
    frames: FrameChoice = FrameChoice.ALL
    """Which frames are used when there are not as many positions."""
    drop_frames: tuple[NonNegativeInt | FrameRange, ...] = ()
    """Frames that are left out, by their number in the file (from 0); two numbers are the first and the last of a
    range."""
    frame_axes: FrameAxes | None = None
    """Order of the axes of stored frames; None as the format says. NXptycho does not say it clearly."""
    probe: ProbeUse = ProbeUse.AS_STORED
    """What is done with the file's probe."""
    preprocess: PreprocessSettings = PreprocessSettings()
    """Corrections of the file's frames and positions."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """Return all files, as the user ordered them."""
        return self.path if isinstance(self.path, tuple) else (self.path,)


class SpecimenKind(StrEnum):
    """What is simulated."""

    INTEGRATED_CIRCUIT = "integrated_circuit"
    """Layers of wires, vias and pads."""
    CELLS = "cells"
    """Cells with nuclei and granules among metal nanoparticles."""


class Trajectory(StrEnum):
    """Order in which the lines of a scan are walked."""

    RASTER = "raster"
    """Every line from low to high x."""
    SNAKE = "snake"
    """Every other line backwards."""


class ProbeKind(StrEnum):
    """Shape of the lens that makes the simulated probe."""

    DEFOCUSED = "defocused"
    """Round lens: a disc with fringes."""
    ZONE_PLATE = "zone_plate"
    """Lens with a central stop: a ring, as behind a Fresnel zone plate."""


class ProbeSettings(Settings):
    """A simulated probe: the image of a lens, out of focus."""

    kind: ProbeKind = ProbeKind.DEFOCUSED
    """Shape of the lens."""
    diameter_fraction: PositiveFraction = 0.4
    """Diameter of the probe over the width of the frame's field of view; sets the defocus."""
    pupil_fraction: PositiveFraction = 0.3
    """Diameter of the direct beam on the detector over the detector's width; sets the finest detail of the probe."""
    central_stop_fraction: Fraction = 0.4
    """Diameter of a zone plate's central stop over that of the lens; a defocused lens has none."""
    measured: Path | None = None
    """A measured probe in place of a lens: the folder of a run, a `.npy` file, or a scan file. It has the frames'
    shape; its photons are the simulation's, and the scan's steps follow from its diameter, 4σ."""


class SpecimenPhase(Settings):
    """One specimen of a scan that visits several, one after another."""

    kind: SpecimenKind
    """What is scanned."""
    perspectives: PositiveInt
    """Rotation angles, before the next specimen comes."""
    seed: NonNegativeInt = 0
    """Another seed gives another specimen of the kind; a phase with the same seed and kind brings the same one back."""
    angle_range_deg: tuple[float, float] = (-45.0, 45.0)
    """First and last rotation angle about the y axis."""
    phase_range_rad: PhaseRange = 2.5
    """The strongest phase shift; phases lie in [-phase_range_rad, 0], so none wraps."""
    minimum_amplitude: PositiveFraction = 0.75
    """Amplitude behind the most absorbing part of the specimen."""


class SimulationSettings(Settings):
    """A simulated scan of a rotating specimen, or of several one after another."""

    kind: Literal["simulation"] = "simulation"
    specimen: SpecimenKind = SpecimenKind.INTEGRATED_CIRCUIT
    """What is scanned."""
    specimens: tuple[SpecimenPhase, ...] = ()
    """Specimens visited one after another, in place of `specimen`, `perspectives`, `angle_range_deg`, `phase_range_rad`
    and `minimum_amplitude`; none scans the one that those describe."""
    seed: NonNegativeInt = 0
    """The same seed gives the same scan, frame by frame."""
    perspectives: PositiveInt = 16
    """Rotation angles."""
    frames_per_perspective: PositiveInt = 400
    """Scan positions at each angle."""
    frame_shape_px: PixelPair = (64, 64)
    """Detector pixels (y, x)."""
    angle_range_deg: tuple[float, float] = (-45.0, 45.0)
    """First and last rotation angle about the y axis."""
    trajectory: Trajectory = Trajectory.SNAKE
    """Order of the scan positions."""
    overlap: Fraction = 0.7
    """Share of the probe's diameter that neighbouring positions have in common; sets the step."""
    position_jitter_px: NonNegativeFloat = 1.0
    """Standard deviation of the scan positions about the regular grid, along y and x."""
    probe: ProbeSettings = ProbeSettings()
    """The illumination."""
    photons_per_frame: PositiveFloat = 1e6
    """Photons in the probe."""
    phase_range_rad: PhaseRange = 2.5
    """The strongest phase shift; phases lie in [-phase_range_rad, 0], so none wraps."""
    minimum_amplitude: PositiveFraction = 0.75
    """Amplitude behind the most absorbing part of the specimen."""
    dead_pixel_fraction: Fraction = 0.0
    """Share of detector pixels that always read 0 and are in the mask."""
    energy_eV: PositiveFloat = 8800.0
    """Photon energy."""
    detector_distance_m: PositiveFloat = 1.5
    """Specimen to detector."""
    detector_pixel_size_m: tuple[PositiveFloat, PositiveFloat] = (75e-6, 75e-6)
    """Detector pixel (y, x)."""

    @property
    def phases(self) -> tuple[SpecimenPhase, ...]:
        """What is scanned, in order: `specimens`, or else the one specimen."""
        return self.specimens or (
            SpecimenPhase(
                kind=self.specimen,
                perspectives=self.perspectives,
                angle_range_deg=self.angle_range_deg,
                phase_range_rad=self.phase_range_rad,
                minimum_amplitude=self.minimum_amplitude,
            ),
        )


class HoldOut(StrEnum):
    """What is kept away from training, to test generalisation."""

    NONE = "none"
    LAST_PERSPECTIVE = "last_perspective"
    REGION = "region"
    """One end of every perspective's scanned area."""


class RegionEnd(StrEnum):
    """Which end of the scanned area is held out."""

    LOW_Y = "low_y"
    HIGH_Y = "high_y"
    LOW_X = "low_x"
    HIGH_X = "high_x"


class RoleSettings(Settings):
    """What each frame is used for."""

    validation_fraction: Fraction = 0.1
    """Share of each perspective's frames for validation, chosen by a seeded hash of the frame id."""
    hold_out: HoldOut = HoldOut.NONE
    """What is kept away from training and validation."""
    region_end: RegionEnd = RegionEnd.HIGH_Y
    """Where the held-out region lies."""
    region_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    """Size of the held-out region over the extent of the positions along its axis."""
    gap_px: NonNegativeFloat = 0.0
    """Added to the gap that keeps training patches from overlapping held-out ones, in object pixels."""
