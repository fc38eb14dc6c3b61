"""Settings of the outputs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ptychoflow.streaming.settings import Port, Settings


class NtndarrayOutputSettings(Settings):
    """Serves the newest images as NTNDArrays over PvAccess, which ImageJ and c2dv show.

    Channels: `prefix` + `FirstPass`, `Refreshed` or `Reference` + `:Amplitude` or `:Phase`. Needs the extra `epics`.
    """

    prefix: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[\x21-\x7e]+$")]
    """Begin of the channels' names, such as `PTYCHO:`."""
    host: str = "127.0.0.1"
    """Address of this machine that is listened on. PvAccess is not encrypted: who reaches it sees the images."""
    port: Port = 0
    """TCP port; 0 takes a free one, as clients find channels by their names."""


class OutputsSettings(Settings):
    """Where images and scores go, live, besides the page. Nothing that happens there slows the run."""

    ntndarray: NtndarrayOutputSettings | None = None
    """NTNDArrays over PvAccess."""

    @property
    def chosen(self) -> list[str]:
        """Names of the outputs that are switched on."""
        return [name for name in type(self).model_fields if getattr(self, name) is not None]
