"""The references of telemetry events, messages and commands, from the structs that travel."""

from __future__ import annotations

import typing

from manual.structs import struct_reference
from ptychoflow.streaming.commands import AnyCommand
from ptychoflow.streaming.events import AnyEvent
from ptychoflow.streaming.messages import ControlMessage, DataMessage


def event_reference() -> str:
    """Return every event of the telemetry."""
    return "\n".join(struct_reference("event", cls) for cls in typing.get_args(AnyEvent))


def message_reference() -> str:
    """Return every message of the data sockets."""
    return "\n".join(struct_reference("message", cls) for cls in typing.get_args(DataMessage))


def control_reference() -> str:
    """Return what receivers tell the sender."""
    return "\n".join(struct_reference("message", cls) for cls in typing.get_args(ControlMessage))


def command_struct_reference() -> str:
    """Return what people can ask of a run."""
    return "\n".join(struct_reference("message", cls) for cls in typing.get_args(AnyCommand))
