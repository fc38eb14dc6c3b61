"""Base class of every configuration section, and the network section that all parts share."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

from ptychoflow.streaming.run_folder import RunFolder


class Settings(BaseModel):
    """A validated, immutable configuration section; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @field_validator("*")
    @classmethod
    def _within_64_bits(cls, value: Any) -> Any:
        for number in value if isinstance(value, list | tuple) else (value,):
            if isinstance(number, int) and abs(number) >= 2**63:
                raise ValueError("a whole number beyond 64 bits")
        return value

    @field_validator("*")
    @classmethod
    def _at_home(cls, value: Any) -> Any:
        """Let `~` stand for the user's home: a shell sees to it at the beginning of a word alone.

        A path must have UTF-8, in which configurations are written.
        """
        if isinstance(value, list | tuple):
            return type(value)(map(_expanded, value))
        return _expanded(value)


def _expanded(value: Any) -> Any:
    if not isinstance(value, Path):
        return value
    try:
        str(value).encode()
        return value.expanduser()
    except RuntimeError:
        raise ValueError(f"there is no home folder {value.parts[0]}") from None
    except UnicodeEncodeError:
        raise ValueError("it is no UTF-8, in which settings are kept: rename it, or name a link to it") from None


LONGEST_FOLDER = 100
"""The path of a socket may have 107 bytes."""
Port = Annotated[int, Field(ge=0, le=65535)]


class NetworkSettings(Settings):
    """Where the parts of one run find each other.

    `ptychoflow run` lets them talk over files in a folder that only its user can enter. Where a host or a port is set,
    they talk over ports instead, and port 0 lets the launcher choose a free one.
    """

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
    sockets_dir: Path | None = None
    """Folder of this user's alone, for parts that are started by hand on one host: they talk over files in it, whose
    names the ports are (a port that is 0 gets one), and no other user reaches them. Made if it is not there."""
    keys_dir: Path | None = None
    """CURVE keys made by `ptychoflow keys`; required for every host that is not loopback."""
    batches_queued: PositiveInt = 8
    """Batches of frames or samples that ZeroMQ queues per socket before the sender spools. What waits in long queues
    takes memory on both sides, and is out of the processor's caches when it is read."""
    high_water_mark: PositiveInt = 64
    """Other messages that ZeroMQ queues per socket."""
    max_message_bytes: PositiveInt = 1 << 30
    """A message of which one part, its header or an array, is larger is refused before anything is allocated, counted
    and told; so is one whose arrays are larger together, once it is here. How many parts it has is seen only then: who
    may connect can fill the memory of the other side."""

    @model_validator(mode="before")
    @classmethod
    def _name_sockets(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("sockets_dir") is None:
            return values
        names = {name: number for number, name in enumerate(PORT_FIELDS, start=1)}
        return names | {key: value for key, value in values.items() if not (key in names and value == 0)}

    @model_validator(mode="after")
    def _folder_can_hold_sockets(self) -> Self:
        if self.sockets_dir is None:
            return self
        if not all(map(is_loopback, self.hosts)):
            raise ValueError("sockets_dir is for parts that are all on one host: leave it out, or the hosts")
        if len(os.fsencode(self.sockets_dir)) > LONGEST_FOLDER:
            raise ValueError(f"sockets_dir is longer than {LONGEST_FOLDER} bytes, too long for sockets: choose another")
        return self

    @property
    def hosts(self) -> tuple[str, ...]:
        """All hosts that something listens on."""
        return self.acquisition_host, self.trainer_host, self.hub_host

    @property
    def says_where(self) -> bool:
        """Whether a folder, another host or a port is set, so that there is nothing to choose."""
        ports = any(getattr(self, name) for name in PORT_FIELDS)
        return self.sockets_dir is not None or ports or not all(map(is_loopback, self.hosts))

    @property
    def is_open_to_others(self) -> bool:
        """Whether other users of this host can take part: ports, and no keys."""
        return self.sockets_dir is None and self.keys_dir is None

    @property
    def encrypts(self) -> bool:
        """Whether sockets take keys; files in a folder need none."""
        return self.keys_dir is not None and self.sockets_dir is None

    def in_folder(self, folder: Path) -> NetworkSettings:
        """Return these settings for parts that talk over files in a folder."""
        return NetworkSettings(**self.model_dump(exclude=set(PORT_FIELDS)) | {"sockets_dir": folder})

    def endpoint(self, host: str, port: int) -> str:
        """Return what ZeroMQ calls the place where `host` listens on `port`; 0 takes a free port."""
        return f"tcp://{host}:{port or '*'}" if self.sockets_dir is None else f"ipc://{self.sockets_dir / str(port)}"


PORT_FIELDS = (
    *(name for name in NetworkSettings.model_fields if name.endswith("_port") and name != "samples_port"),
    "samples_port",
)
"""Of `NetworkSettings`; the one that counts on for every rank is last."""


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
