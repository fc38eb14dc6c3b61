"""Who is who among the parts of a run, and who may connect to which socket."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """Each has a key pair of its own."""

    ACQUISITION = "acquisition"
    """Publishes frames and samples; `ptychoflow acquire`."""
    TRAINER = "trainer"
    """All ranks; `ptychoflow train`."""
    EDGE = "edge"
    """`ptychoflow edge`."""
    HUB = "hub"
    """Collects telemetry and passes commands on; `ptychoflow dashboard`, and the launcher of `ptychoflow run`."""
    DASHBOARD = "dashboard"
    """A dashboard beside the hub, which watches and commands; `ptychoflow dashboard --no-hub`."""
    OUTPUTS = "outputs"
    """Watches and commands nothing; `ptychoflow outputs`."""
    POSITIONS = "positions"
    """A program at the beamline that sends positions with `PositionSender`."""


@dataclass(frozen=True)
class Access:
    """One kind of socket: whose it is, and who may connect to it."""

    name: str
    owner: Role
    clients: tuple[Role, ...]


FRAMES = Access("frames", Role.ACQUISITION, (Role.EDGE,))
SAMPLES = Access("samples", Role.ACQUISITION, (Role.TRAINER,))
ACKNOWLEDGEMENTS = Access("acknowledgements", Role.ACQUISITION, (Role.EDGE, Role.TRAINER))
POSITIONS = Access("positions", Role.ACQUISITION, (Role.POSITIONS,))
WEIGHTS = Access("weights", Role.TRAINER, (Role.EDGE,))
TELEMETRY = Access(
    "telemetry",
    Role.HUB,
    (Role.HUB, Role.ACQUISITION, Role.TRAINER, Role.EDGE, Role.DASHBOARD, Role.OUTPUTS),
)
FANOUT = Access("fanout", Role.HUB, (Role.HUB, Role.DASHBOARD, Role.OUTPUTS))
COMMANDS = Access("commands", Role.HUB, (Role.HUB, Role.DASHBOARD))
COMMANDS_FANOUT = Access("commands_fanout", Role.HUB, TELEMETRY.clients)


def stream_of(consumer: str) -> Access:
    """Return the socket that a consumer, `edge` or `rank-R`, takes its messages from."""
    return FRAMES if consumer == Role.EDGE else SAMPLES
