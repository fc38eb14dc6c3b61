"""Choosing free ports for those that are 0, and refusing those that are taken before anything starts."""

from __future__ import annotations

import errno
import logging
import random
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ptychoflow.dashboard.outputs.settings import OutputsSettings
from ptychoflow.dashboard.settings import DashboardSettings
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.private_folder import is_made_by_us
from ptychoflow.streaming.settings import PORT_FIELDS, NetworkSettings

FIRST_PORT, LAST_PORT = 20000, 32000
"""Below the range from which the system takes ports for outgoing connections, so nobody is given one meanwhile."""
ATTEMPTS = 200
PORTS_OF_HOST: Mapping[str, tuple[str, ...]] = {
    "acquisition_host": ("frames_port", "samples_port", "acknowledgements_port"),
    "trainer_host": ("weights_port",),
    "hub_host": ("telemetry_port", "fanout_port", "commands_port", "commands_fanout_port"),
}
"""What listens on a host, by the setting that names it."""
HOST_OF_PORT = {port: host for host, ports in PORTS_OF_HOST.items() for port in ports}
LAST = 65535

OPEN = (
    "the parts of this run talk over ports of loopback without keys: every user of this host can read and "
    "command it; leave the ports out, name a folder in network.sockets_dir, or make keys with `ptychoflow keys DIR`"
)

log = logging.getLogger(__name__)


def is_free(port: int, *, host: str = "127.0.0.1") -> bool:
    """Whether a socket can listen on the port now."""
    return _refusal(port, host) is None


def is_taken(port: int, *, host: str) -> bool:
    """Whether somebody listens on the port now; not where nobody can, as on another host's address."""
    refusal = _refusal(port, host)
    return refusal is not None and refusal.errno == errno.EADDRINUSE


def _refusal(port: int, host: str) -> OSError | None:
    """Return why no socket can listen on the port now, or None; port 0 asks for the host alone."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # without it, a connection of an earlier run that still lingers would look like a port in use
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error
    return None


def resolve_ports(network: NetworkSettings, *, ranks: int) -> NetworkSettings:
    """Return the settings with every port 0 replaced by a free one; `samples_port` gets `ranks` consecutive ones.

    Where the parts talk over files in a folder, there are no ports to choose.

    Raises:
        UserError: a port that the configuration fixes is in use on this host, or a host is another one.
    """
    if network.sockets_dir is not None:
        return network
    for place in network_places(network, ranks=ranks):
        require_free(place)
    for name in PORT_FIELDS:
        if not getattr(network, name):
            taken = _all_claimed(network, ranks)
            network = network.model_copy(update={name: _choose(_width(name, ranks), taken)})
    return network


def without_taken_ports(network: NetworkSettings, *, ranks: int) -> NetworkSettings:
    """Return the settings with 0 in place of every port that is in use on this host, and without a folder of a run."""
    if network.sockets_dir is not None:
        return without_made_folder(network)
    taken = [name for name in PORT_FIELDS if _any_taken(network, name, ranks)]
    samples = set(_claimed(network, "samples_port", ranks))
    if any(getattr(network, name) in samples for name in PORT_FIELDS if name != "samples_port"):
        taken.append("samples_port")
    return network.model_copy(update=dict.fromkeys(taken, 0))


def without_made_folder(network: NetworkSettings) -> NetworkSettings:
    """Return the settings without the folder that was made for the parts of an earlier run, and is theirs alone."""
    if network.sockets_dir is None or not is_made_by_us(network.sockets_dir):
        return network
    return network.model_copy(update={"sockets_dir": None, **dict.fromkeys(PORT_FIELDS, 0)})


def choose_port(network: NetworkSettings, *, ranks: int) -> int:
    """Return a free port that the network of a run with so many ranks does not use."""
    return _choose(1, _all_claimed(network, ranks))


@dataclass(frozen=True)
class Place:
    """Where a part will listen, and the settings that say so."""

    port: int
    """0 for any."""
    setting: str
    """What names the port."""
    host: str
    """Name or address of this host."""
    host_setting: str


def network_places(network: NetworkSettings, *, ranks: int) -> list[Place]:
    """Return where the parts of a run will listen, but for those that talk over files in a folder.

    Raises:
        UserError: the last rank's port would be above 65535.
    """
    if network.sockets_dir is not None:
        return []
    return [
        Place(port, f"network.{name}", _host(network, name), f"network.{HOST_OF_PORT[name]}")
        for name in PORT_FIELDS
        for port in _claimed(network, name, ranks) or [0]
    ]


def served_places(dashboard: DashboardSettings, outputs: OutputsSettings | None) -> list[Place]:
    """Return where the page and the outputs that listen will do so."""
    places = []
    if dashboard.enabled:
        places.append(Place(dashboard.port, "dashboard.port", dashboard.host, "dashboard.host"))
    if outputs is not None and (served := outputs.ntndarray) is not None:
        places.append(Place(served.port, "outputs.ntndarray.port", served.host, "outputs.ntndarray.host"))
    if outputs is not None and (published := outputs.bluesky) is not None and not published.proxy:
        places.append(Place(published.port, "outputs.bluesky.port", published.host, "outputs.bluesky.host"))
    return places


def require_free(place: Place) -> None:
    """Raise `UserError` unless this host can listen there now."""
    match _refusal(place.port, place.host):
        case None:
            return
        case OSError(errno=errno.EADDRINUSE):
            raise UserError(
                f"port {place.port} is in use on {place.host}; stop what holds it, or choose another with "
                f"--set {place.setting}=N"
            )
        case OSError(errno=errno.EACCES):
            raise UserError(
                f"this user may not listen on port {place.port}; choose one above 1023 with --set {place.setting}=N"
            )
        case OSError() as error:
            raise UserError(
                f"{place.host_setting} = {place.host}: this host cannot listen there: {error.strerror}; "
                "name an address of this host"
            )


def require_distinct(places: Iterable[Place]) -> None:
    """Raise `UserError` if two settings name the same port of a host."""
    settings: dict[tuple[str, int], str] = {}
    for place in places:
        other = settings.setdefault((place.host, place.port), place.setting)
        if place.port and other != place.setting:
            raise UserError(f"{other} and {place.setting} both come to port {place.port}; choose another for one")


def require_fixed(network: NetworkSettings) -> None:
    """Raise UserError if a port is 0: parts that are started one by one cannot find each other then."""
    missing = [f"network.{name}" for name in PORT_FIELDS if not getattr(network, name)]
    if missing:
        raise UserError(
            f"{', '.join(missing)}: port 0 is chosen by `ptychoflow run` only; "
            "give every part that is started alone the same --config with fixed ports, "
            "or with network.sockets_dir if all of them are on this host"
        )


def warn_if_open(network: NetworkSettings) -> None:
    """Log it if other users of this host can take part in the run."""
    if network.is_open_to_others:
        log.warning("%s", OPEN)


def _host(network: NetworkSettings, port_name: str) -> str:
    """Return the host of a port, as the system wants it; ZeroMQ also takes addresses in brackets."""
    host: str = getattr(network, HOST_OF_PORT[port_name])
    return host.strip("[]")


def _any_taken(network: NetworkSettings, name: str, ranks: int) -> bool:
    return any(is_taken(port, host=_host(network, name)) for port in _claimed(network, name, ranks))


def _width(name: str, ranks: int) -> int:
    return ranks if name == "samples_port" else 1


def _all_claimed(network: NetworkSettings, ranks: int) -> set[int]:
    return {port for name in PORT_FIELDS for port in _claimed(network, name, ranks)}


def _claimed(network: NetworkSettings, name: str, ranks: int) -> range:
    first = getattr(network, name)
    ports = range(first, first + _width(name, ranks)) if first else range(0)
    if ports and ports[-1] > LAST:
        raise UserError(
            f"network.{name} = {first}: {ranks} ranks need so many consecutive ports, the last of which would be "
            f"{ports[-1]}, above {LAST}; choose a lower one"
        )
    return ports


def _choose(count: int, taken: set[int]) -> int:
    """Return the first of `count` consecutive free ports, none of them in `taken`."""
    for _ in range(ATTEMPTS):
        first = random.randrange(FIRST_PORT, LAST_PORT - count)  # noqa: S311 not a secret
        ports = range(first, first + count)
        if taken.isdisjoint(ports) and all(is_free(port) for port in ports):
            return first
    raise UserError(f"found no {count} consecutive free ports between {FIRST_PORT} and {LAST_PORT} on this host")
