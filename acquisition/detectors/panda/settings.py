"""Configuration of PandA position capture, and of what speaks like it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from ptychoflow.acquisition.readers.units import LengthUnit
from ptychoflow.streaming.settings import Port, Settings

DATA_PORT = 8889
FieldName = Annotated[str, Field(min_length=1, max_length=256)]


class PandaSettings(Settings):
    """Positions from the data port of a PandA, scaled by the box."""

    kind: Literal["panda"] = "panda"
    host: str
    """Name or address of the box."""
    port: Port = DATA_PORT
    """Its data port."""
    field_y: FieldName
    """Captured field that is y, as `NAME.Capture`, such as `INENC2.VAL.Mean`; the name alone where it is captured
    once."""
    field_x: FieldName
    """Captured field that is x."""
    unit: LengthUnit | None = None
    """Unit of both fields; it counts before what the box says, and must be given where the box says none."""
    trigger_field: FieldName | None = None
    """Captured field with the number of the trigger, such as `COUNTER1.OUT.Value`. Without, samples are numbered as
    they were captured, from 0, those included that were captured before the connection was made."""
    stale_first_sample: bool
    """Whether the first sample of every capture holds what was latched before it: its position is then not used. It is
    counted all the same."""
    max_message_bytes: PositiveInt = 1 << 26
    """A header or block of samples that declares more is refused, and the connection made anew."""


class PandaSimulatorSettings(Settings):
    """Serves the positions of a scan as a PandA's data port does."""

    kind: Literal["panda"] = "panda"
    host: str = "127.0.0.1"
    """Address that is listened on."""
    port: Port = DATA_PORT
    """Port; 0 takes a free one."""
    field_y: FieldName = "INENC2.VAL"
    """Name of the field that is y; it is captured as `Mean`."""
    field_x: FieldName = "INENC1.VAL"
    """Name of the field that is x."""
    unit: LengthUnit = LengthUnit.METRE
    """Unit that the positions are said in."""
    first_trigger: int = 1
    """Number of the first trigger in the field `COUNTER1.OUT.Value`."""
    samples_per_frame: PositiveInt = 1
    """Samples captured at every frame, all at its position."""
    stale_first_sample: bool = False
    """One sample more is captured at the beginning, at position 0."""
    loses_unheard: bool = False
    """Once somebody was connected, a capture begins whether anybody is or not, as with a box; else it waits."""
