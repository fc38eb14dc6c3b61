"""Choosing free ports for those that are 0, and refusing those that are taken before anything starts."""

from __future__ import annotations

import logging
import random
import socket

from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.private_folder import is_made_by_us
from ptychoflow.streaming.settings import PORT_FIELDS, NetworkSettings

FIRST_PORT, LAST_PORT = 20000, 32000
"""Below the range from which the system takes ports for outgoing connections, so nobody is given one meanwhile."""
ATTEMPTS = 200

OPEN = (
    "the parts of this run talk over ports of loopback without keys: every user of this host can read and "
    "command it; leave the ports out, name a folder in network.sockets_dir, or make keys with `ptychoflow keys DIR`"
)

log = logging.getLogger(__name__)


def is_free(port: int, *, host: str = "127.0.0.1") -> bool:
    """Whether a socket can listen on the port now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # without it, a connection of an earlier run that still lingers would look like a port in use
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def resolve_ports(network: NetworkSettings, *, ranks: int) -> NetworkSettings:
    """Return the settings with every port 0 replaced by a free one; `samples_port` gets `ranks` consecutive ones.

    Where the parts talk over files in a folder, there are no ports to choose.

    Raises:
        UserError: a port that the configuration fixes is in use on this host.
    """
    if network.sockets_dir is not None:
        return network
    for name in PORT_FIELDS:
        for port in _claimed(network, name, ranks):
            require_free(port, setting=f"network.{name}")
    for name in PORT_FIELDS:
        if not getattr(network, name):
            taken = _all_claimed(network, ranks)
            network = network.model_copy(update={name: _choose(_width(name, ranks), taken)})
    return network


def without_taken_ports(network: NetworkSettings, *, ranks: int) -> NetworkSettings:
    """Return the settings with 0 in place of every port that is in use on this host, and without a folder of a run."""
    if network.sockets_dir is not None:
        return without_made_folder(network)
    taken = [name for name in PORT_FIELDS if not all(is_free(port) for port in _claimed(network, name, ranks))]
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


def require_free(port: int, *, setting: str, host: str = "127.0.0.1") -> None:
    """Raise UserError if the port that `setting` names is in use on this host."""
    if port and not is_free(port, host=host):
        raise UserError(
            f"port {port} is in use on {host}; stop what holds it, or choose another with --set {setting}=N"
        )


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


def _width(name: str, ranks: int) -> int:
    return ranks if name == "samples_port" else 1


def _all_claimed(network: NetworkSettings, ranks: int) -> set[int]:
    return {port for name in PORT_FIELDS for port in _claimed(network, name, ranks)}


def _claimed(network: NetworkSettings, name: str, ranks: int) -> range:
    first = getattr(network, name)
    return range(first, first + _width(name, ranks)) if first else range(0)


def _choose(count: int, taken: set[int]) -> int:
    """Return the first of `count` consecutive free ports, none of them in `taken`."""
    for _ in range(ATTEMPTS):
        first = random.randrange(FIRST_PORT, LAST_PORT - count)  # noqa: S311 not a secret
        ports = range(first, first + count)
        if taken.isdisjoint(ports) and all(is_free(port) for port in ports):
            return first
    raise UserError(f"found no {count} consecutive free ports between {FIRST_PORT} and {LAST_PORT} on this host")
