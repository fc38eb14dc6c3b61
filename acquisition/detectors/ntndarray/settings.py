"""Configuration of frames of EPICS areaDetector, and of what speaks like it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from ptychoflow.acquisition.readers.units import LengthUnit
from ptychoflow.streaming.settings import Port, Settings
from ptychoflow.streaming.written_as import written_as

Name = Annotated[str, Field(min_length=1, max_length=256)]
Server = Annotated[str, Field(max_length=256), written_as(r"[A-Za-z0-9._-]+(:[0-9]{1,5})?", "give HOST or HOST:PORT")]


class SeriesByAcquire(Settings):
    """A series lasts while a PV says that the detector acquires."""

    by: Literal["acquire"] = "acquire"
    pv: Name
    """PV over PvAccess that is not 0 during a series, such as `13SIM1:cam1:Acquire_RBV`. It should be of the same IOC
    as the frames: then both come in order."""
    settle_s: PositiveFloat = 0.5
    """A series ends when the PV has been 0 and no frame has come for so long. Frames that come later still, and those
    on their way when the next series begins, cannot be told from others."""


class SeriesByAttribute(Settings):
    """Every frame says by an attribute which series it belongs to."""

    by: Literal["attribute"] = "attribute"
    attribute: Name
    """NDAttribute whose value is another one for every series, such as the scan's number or the name of its file."""


class SeriesByPause(Settings):
    """A pause between two frames ends a series."""

    by: Literal["pause"] = "pause"
    pause_s: PositiveFloat
    """The next frame after a pause of so long begins the next series; no pause within a series may be that long."""


Series = Annotated[SeriesByAcquire | SeriesByAttribute | SeriesByPause, Field(discriminator="by")]


class FrameNumber(StrEnum):
    """Where the number of a frame within its series comes from."""

    UNIQUE_ID = "unique_id"
    """`uniqueId`, that is ArrayCounter; only where it is reset for every series, which areaDetector does not do by
    itself."""
    FROM_FIRST = "from_first"
    """`uniqueId`, counted from the first frame of the series that came, which is 0; if that was not the first one, all
    are numbered too low."""
    ATTRIBUTE = "attribute"
    """The attribute `number_attribute`."""


class PositionAttributes(Settings):
    """Attributes of a frame that say where the probe was."""

    y: Name
    """NDAttribute that is y."""
    x: Name
    """NDAttribute that is x."""
    unit: LengthUnit
    """Of both."""


class NtndarraySettings(Settings):
    """Frames of areaDetector over PvAccess."""

    kind: Literal["ntndarray"] = "ntndarray"
    pv: Name
    """The channel, such as `13SIM1:Pva1:Image`."""
    servers: tuple[Server, ...] = ()
    """Where it is, as `host` or `host:port` with the server's TCP port; searched for there over TCP, and over UDP at
    EPICS's own port. Without, EPICS's environment variables say where (`EPICS_PVA_ADDR_LIST`, …)."""
    series: Series
    """How a series begins and ends."""
    number_from: FrameNumber
    """Where the number of a frame comes from."""
    number_attribute: Name | None = None
    """NDAttribute that holds it, with `number_from = "attribute"`."""
    positions: PositionAttributes | None = None
    """Attributes with the position, where frames bring it themselves."""
    angle_attribute: Name | None = None
    """NDAttribute with the rotation angle in degrees, read from the first frame of a series."""
    energy_attribute: Name | None = None
    """NDAttribute with the photon energy in eV, read from the first frame of a series."""
    queue_updates: PositiveInt = 200
    """Frames that the server and this end each queue; beyond that PvAccess drops, and frames are missing."""
    max_frame_px: PositiveInt = 1 << 26
    """Frames that say to have more pixels are refused."""

    @property
    def gives_positions(self) -> bool:
        """Whether positions are taken from attributes."""
        return self.positions is not None

    @model_validator(mode="after")
    def _number_is_named(self) -> Self:
        if (self.number_from is FrameNumber.ATTRIBUTE) != (self.number_attribute is not None):
            raise ValueError('number_attribute belongs to number_from = "attribute", and must be given with it')
        return self


class Compression(StrEnum):
    """The compressions of NDPluginCodec without loss, by the names that they have on the wire."""

    NONE = ""
    LZ4 = "lz4"
    LZ4_HDF5 = "lz4hdf5"
    BSLZ4 = "bslz4"
    BLOSC = "blosc"
    ZLIB = "zlib"


class NtndarraySimulatorSettings(Settings):
    """Serves the frames of a scan as areaDetector does, each with its position, series and number as attributes.

    Channels: `PREFIX` + `Pva1:Image`, and `PREFIX` + `cam1:Acquire_RBV`. Attributes: `SampleY`, `SampleX`, `ScanId`,
    `FrameNumber` (from 0), `Angle` in degrees, `Energy` in eV.
    """

    kind: Literal["ntndarray"] = "ntndarray"
    host: str = "127.0.0.1"
    """Address of this machine that is listened on."""
    port: Port = 5075
    """TCP port; 0 takes a free one."""
    prefix: Annotated[str, Field(max_length=200)] = "13SIM1:"
    """Begin of the channels' names."""
    unit: LengthUnit = LengthUnit.MICROMETRE
    """Unit of the positions."""
    compression: Compression = Compression.NONE
    """What NDPluginCodec would be set to."""
    first_unique_id: int = 1
    """`uniqueId` of the very first frame; it goes on counting from series to series."""
