"""Base class of every configuration section, and the network section that all parts share."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from ptychoflow.streaming.run_folder import RunFolder


class Settings(BaseModel):
    """A validated, immutable configuration section; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


Port = Annotated[int, Field(ge=0, le=65535)]


class NetworkSettings(Settings):
    """Where the parts of one run find each other. Port 0 lets the launcher choose a free one."""

    acquisition_host: str = "127.0.0.1"
    """Host that publishes frames and samples and collects acknowledgements."""
    trainer_host: str = "127.0.0.1"
    """Host of trainer rank 0, which serves the newest weights."""
    hub_host: str = "127.0.0.1"
    """Host that collects telemetry and fans it out to dashboards, and passes their commands on to the parts."""
    frames_port: Port = 0
    """Frames and reference images for the edge."""
    samples_port: Port = 0
    """Samples for trainer rank 0; rank r uses `samples_port + r`."""
    acknowledgements_port: Port = 0
    """Where consumers announce themselves and acknowledge batches."""
    weights_port: Port = 0
    """Where the edge asks for weights newer than its own."""
    telemetry_port: Port = 0
    """Where every part sends telemetry."""
    fanout_port: Port = 0
    """Where dashboards subscribe to telemetry."""
    commands_port: Port = 0
    """Where dashboards send commands."""
    commands_fanout_port: Port = 0
    """Where every part subscribes to commands."""
    interface: str | None = None
    """How the trainer's ranks on several hosts reach each other: the name of an interface (`ib0`), an address of this
    host, or a network (`10.77.0.0/24`), which can be the same in the configuration of every host. gloo, NCCL, UCX and
    the rehearsal buffer use it. By default it is the one that leads to the other hosts, and loopback where there are
    none."""
    keys_dir: Path | None = None
    """CURVE keys made by `ptychoflow keys`; required for every host that is not loopback."""
    high_water_mark: PositiveInt = 64
    """Batches that ZeroMQ queues per socket before the sender spools."""
    max_message_bytes: PositiveInt = 1 << 30
    """A message that declares more than this is refused before anything is allocated, counted and told."""


def is_loopback(host: str) -> bool:
    """Return whether `host`, a name or an address, can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class RunContext:
    """What every part of one run shares."""

    name: str
    directory: Path
    """The run's folder."""
    seed: int

    @property
    def folder(self) -> RunFolder:
        """The names in it."""
        return RunFolder(self.directory)
