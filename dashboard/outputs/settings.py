"""Settings of the outputs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeFloat

from ptychoflow.streaming.settings import Port, Settings
from ptychoflow.streaming.written_as import written_as

PRINTABLE = written_as(r"[!-~]*", "use printable ASCII characters, and no spaces")


class NtndarrayOutputSettings(Settings):
    """Serves the newest images as NTNDArrays over PvAccess, which ImageJ and c2dv show.

    Channels: `prefix` + `FirstPass`, `Refreshed`, `Reference` or `Preview` + `:Amplitude` or `:Phase`. Needs the extra
    `epics`.
    """

    prefix: Annotated[str, Field(min_length=1, max_length=200), PRINTABLE]
    """Begin of the channels' names, such as `PTYCHO:`."""
    host: str = "127.0.0.1"
    """Address of this machine that is listened on. PvAccess is not encrypted: who reaches it sees the images."""
    port: Port = 0
    """TCP port; 0 takes a free one, as clients find channels by their names."""


class DocumentFormat(StrEnum):
    """How documents are written."""

    MSGPACK = "msgpack"
    JSON = "json"
    """Figures that are not finite are null."""


class BlueskyOutputSettings(Settings):
    """Publishes scores as bluesky documents over ZeroMQ, so that a plan can react to them.

    Each message is `prefix`, a space, the kind of document, a space, the document.
    """

    port: Annotated[int, Field(ge=1, le=65535)]
    """TCP port that is listened on; of the proxy, where there is one."""
    host: str = "127.0.0.1"
    """Address of this machine that is listened on, or host of the proxy. Documents are not encrypted."""
    proxy: bool = False
    """Connect to a bluesky proxy, to the side on which it takes documents in, rather than listen."""
    format: DocumentFormat = DocumentFormat.MSGPACK
    """How documents are written; never as pickle, which is bluesky's default."""
    prefix: Annotated[str, Field(max_length=200), PRINTABLE] = ""
    """Tells these documents from those of others behind the same proxy."""


class TiledOutputSettings(Settings):
    """Writes images and scores to a Tiled server, a container for each run. Needs the extra `tiled`.

    The key, if the server wants one, is taken from the environment variable `TILED_API_KEY`.
    """

    url: Annotated[
        str,
        written_as(
            r"https?://[^\s?#@/]+(/[^\s?#]*)?",
            "give http://HOST:PORT or https://..., without ?, # and a password: it would be kept in the run's folder; "
            "the server's key is taken from the environment variable TILED_API_KEY",
        ),
    ]
    """Of the server, such as `http://127.0.0.1:8000`; without a password, which would be kept in the run's folder."""
    container: Annotated[
        str, written_as(r"([^\s?#/]+(/[^\s?#/]+)*)?", "give names with / between them, without spaces, ? and #")
    ] = ""
    """Where on the server the run is put, such as `beamline/raw`; it must be there."""
    pause_s: NonNegativeFloat = 1.0
    """Left between two writes, so that the server is not written to all the time."""


class PtychodusOutputSettings(Settings):
    """Hands every perspective over to other programs, as a ptychodus product with its diffraction file.

    Written when all frames of the perspective have come, into `folder`/RUN/`perspective_0000`.
    """

    folder: Path
    """Made if need be."""


class OutputsSettings(Settings):
    """Where images and scores go, live, besides the page. Nothing that happens there slows the run."""

    ntndarray: NtndarrayOutputSettings | None = None
    """NTNDArrays over PvAccess."""
    bluesky: BlueskyOutputSettings | None = None
    """Bluesky documents over ZeroMQ."""
    tiled: TiledOutputSettings | None = None
    """A Tiled server."""
    ptychodus: PtychodusOutputSettings | None = None
    """Whole perspectives as files for further phase retrieval."""

    @property
    def chosen(self) -> list[str]:
        """Names of the outputs that are switched on."""
        return [name for name in type(self).model_fields if getattr(self, name) is not None]
