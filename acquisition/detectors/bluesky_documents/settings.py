"""Configuration of bluesky documents, and of what sends such."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from ptychoflow.acquisition.detectors.hdf5_swmr.settings import DatasetPath
from ptychoflow.acquisition.readers.units import LengthUnit
from ptychoflow.streaming.settings import Port, Settings
from ptychoflow.streaming.written_as import written_as

OUT_PORT = 5578
Key = Annotated[str, Field(min_length=1, max_length=256)]
Prefix = Annotated[str, Field(max_length=64), written_as(r"[!-~]*", "use printable ASCII characters, and no spaces")]


class BlueskyDocumentsSettings(Settings):
    """Positions, frames or both from the documents of a RunEngine; a run is a series."""

    kind: Literal["bluesky-documents"] = "bluesky-documents"
    host: str
    """Where documents are published: the out side of the proxy."""
    port: Port = OUT_PORT
    """Port there."""
    prefix: Prefix | None = None
    """What the publisher puts before its documents; None takes those of all."""
    stream: Key = "primary"
    """Name of the event stream."""
    frames: Key | None = None
    """Data key of the detector, such as `eiger`; None if the frames come from elsewhere."""
    folder: Path | None = None
    """Folder that the detector's files are in. Nothing outside of it is read, whatever documents or links say."""
    folder_there: PurePosixPath | None = None
    """How the same folder is called in the documents; None: as here."""
    field_y: Key | None = None
    """Data key of y in events; None if the positions come from elsewhere."""
    field_x: Key | None = None
    """Data key of x."""
    unit: LengthUnit | None = None
    """Unit of both; it counts before what the documents say, and must be given where they say none."""
    angle_key: Key | None = None
    """Key of the start document with the rotation angle in degrees."""
    energy_key: Key | None = None
    """Key of the start document with the photon energy in eV."""
    curve_secret: Path | None = None
    """Certificate of ZeroMQ with this end's secret key, where the proxy encrypts."""
    curve_server: Path | None = None
    """Certificate with the proxy's public key."""
    high_water_mark: PositiveInt = 10_000
    """Documents that ZeroMQ keeps until they are taken; a proxy drops what it cannot get rid of."""
    max_message_bytes: PositiveInt = 1 << 24
    """A larger document is refused, and the connection made anew."""
    max_frame_px: PositiveInt = 1 << 26
    """Frames with more pixels are refused."""
    max_chunk_bytes: PositiveInt = 1 << 28
    """Datasets in larger chunks are refused: HDF5 decompresses a chunk as a whole."""
    visible_within_s: PositiveFloat = 2.0
    """How long a frame that was announced may take until it can be read."""

    @property
    def gives_positions(self) -> bool:
        """Whether positions are taken from events."""
        return self.field_y is not None

    @model_validator(mode="after")
    def _something_is_taken(self) -> Self:
        if (self.field_y is None) != (self.field_x is None):
            raise ValueError("give both field_y and field_x, or neither")
        if self.frames is None and self.field_y is None:
            raise ValueError("give frames, or field_y and field_x, or all of them")
        if (self.frames is None) != (self.folder is None):
            raise ValueError("give frames and the folder of their files together")
        if (self.curve_secret is None) != (self.curve_server is None):
            raise ValueError("give both curve_secret and curve_server, or neither")
        return self


class Serializer(StrEnum):
    """How documents are written."""

    JSON = "json"
    MSGPACK = "msgpack"


class BlueskyDocumentsSimulatorSettings(Settings):
    """Publishes the documents of a scan as they come out of a proxy, and writes its frames into growing HDF5."""

    kind: Literal["bluesky-documents"] = "bluesky-documents"
    host: str = "127.0.0.1"
    """Address of this machine that is listened on."""
    port: Port = OUT_PORT
    """Port; 0 takes a free one."""
    prefix: Prefix = ""
    """What is put before documents."""
    serializer: Serializer = Serializer.MSGPACK
    """How documents are written."""
    folder: Path | None = None
    """Folder that files with frames are written into; None sends positions alone."""
    frames: Key = "detector"
    """Data key of the detector."""
    dataset: DatasetPath = "/entry/data/data"
    """Of the frames in their files."""
    field_y: Key = "sample_y"
    """Data key of y in events."""
    field_x: Key = "sample_x"
    """Data key of x."""
    unit: LengthUnit = LengthUnit.MILLIMETRE
    """Of both."""
