"""One line of what the doctor says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Light(StrEnum):
    """How something stands, as traffic lights have it."""

    GREEN = "green"
    """As it should be."""
    YELLOW = "yellow"
    """A run works, with less than it could have, or something is not known."""
    RED = "red"
    """A run with this configuration does not work."""


@dataclass(frozen=True)
class Finding:
    """What was seen, and what to do."""

    light: Light
    topic: str
    text: str
    """What there is; where the light is not green, also what to do."""


def green(topic: str, text: str) -> Finding:
    """Return a finding of something that is as it should be."""
    return Finding(Light.GREEN, topic, text)


def yellow(topic: str, text: str) -> Finding:
    """Return a finding of something that is less than it could be."""
    return Finding(Light.YELLOW, topic, text)


def red(topic: str, text: str) -> Finding:
    """Return a finding of something that does not work."""
    return Finding(Light.RED, topic, text)
