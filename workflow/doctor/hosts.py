"""Names, interfaces and ports: whether the parts that the configuration places on hosts find each other."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace

from ptychoflow.buffer.transport.host_interfaces import addresses_of, interface_addresses, interface_of
from ptychoflow.buffer.transport.own_address import named_interface
from ptychoflow.dashboard.settings import DashboardSettings
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.settings import NetworkSettings, is_loopback
from ptychoflow.trainer.network_interface import find_interface
from ptychoflow.workflow.doctor.finding import Finding, green, red, yellow
from ptychoflow.workflow.launching.ports import (
    PORTS_OF_HOST,
    Place,
    is_taken,
    network_places,
    require_free,
    served_places,
)

CONNECT_TIMEOUT_S = 2.0
PART_OF_HOST = {"acquisition_host": "acquire", "trainer_host": "train", "hub_host": "dashboard"}


def look_at_names(network: NetworkSettings) -> Iterator[Finding]:
    """Yield what this host's own name and those of the configuration stand for."""
    own = socket.gethostname()
    address = _resolve(own)
    if address is None:
        yield yellow("names", f"this host's name {own} stands for no address: add it to /etc/hosts")
    elif is_loopback(address) and _spans_hosts(network):
        yield green("names", f"this host is {own} ({address}); other hosts are reached by the interface below")
    else:
        yield green("names", f"this host is {own} ({address})")
    for key in PORTS_OF_HOST:
        host = getattr(network, key)
        if _resolve(host) is None:
            yield red("names", f"network.{key} = {host} stands for no address: correct it, or add it to /etc/hosts")


def look_at_interface(network: NetworkSettings) -> Iterator[Finding]:
    """Yield the interface that the trainer's ranks would use among themselves."""
    topic = "interface"
    found: str | None
    try:
        if network.interface is not None:
            found, why = find_interface(network.interface), "network.interface"
        elif (named := named_interface()) is not None:
            found, why = named, "GLOO_SOCKET_IFNAME"
        elif not _spans_hosts(network):
            found, why = interface_of("127.0.0.1"), "all parts are on this host"
        else:
            found, why = _by_route(network)
    except UserError as error:
        yield red(topic, str(error))
        return
    if found is None:
        yield yellow(topic, f"left to gloo ({why}): name one with network.interface if ranks do not meet")
    elif not addresses_of(found):
        there = ", ".join(dict.fromkeys(one.interface for one in interface_addresses()))
        yield red(topic, f"{found} ({why}) has no address here: there are {there}; set network.interface")
    else:
        yield green(topic, f"{found} ({', '.join(addresses_of(found))}): {why}")


def look_at_ports(network: NetworkSettings, *, ranks: int) -> Iterator[Finding]:
    """Yield whether ports of this host are free, and whether those of other hosts are reached."""
    missing = [f"network.{name}" for names in PORTS_OF_HOST.values() for name in names if not getattr(network, name)]
    if missing:
        said = f"{len(missing)} are not set, and `ptychoflow run` needs none"
        if _spans_hosts(network):
            yield red("ports", f"{said}; but these parts are started one by one: fix {', '.join(missing)}")
        else:
            yield green("ports", said)
    try:
        places = network_places(network, ranks=ranks)
    except UserError as error:
        yield red("ports", str(error))
        return
    own: list[Place] = []
    for key, names in PORTS_OF_HOST.items():
        host = getattr(network, key)
        address = _resolve(host)
        ports = {name: getattr(network, name) for name in names if getattr(network, name)}
        if address is None or not ports:
            continue  # said above
        if interface_of(address) is not None:
            here = [place for place in places if place.port and place.host_setting == f"network.{key}"]
            own += [replace(place, host=address) for place in here]
        else:
            yield _far_host(key, host, ports)
    refused = list(_refused(own, advice="choose others"))
    if own and not refused:
        yield green("ports", f"free on this host: {', '.join(str(place.port) for place in own)}")
    yield from refused


def look_at_page(page: DashboardSettings, network: NetworkSettings) -> Iterator[Finding]:
    """Yield that the live page cannot have its port, if it would be served on this host."""
    hub = _resolve(network.hub_host)
    if hub is not None and interface_of(hub) is not None:
        yield from _refused(served_places(page, None), advice="choose another, or 0")


def _refused(places: Sequence[Place], *, advice: str) -> Iterator[Finding]:
    """Yield where this host cannot listen: on ports that are in use, perhaps by this very run, or at all."""
    taken = [place for place in places if place.port and is_taken(place.port, host=place.host)]
    if taken:
        said = ", ".join(f"{place.setting} = {place.port}" for place in taken)
        yield yellow("ports", f"in use on this host: {said}: if it is not this run, {advice}")
    for place in places:
        if place not in taken:
            try:
                require_free(place)
            except UserError as error:
                yield red("ports", str(error))


def _far_host(key: str, host: str, ports: Mapping[str, int]) -> Finding:
    """Say whether anything listens on the host's ports; nothing is said to what listens."""
    ends = {port: _connect(host, port) for port in ports.values()}
    part = PART_OF_HOST[key]
    if failed := {port: end for port, end in ends.items() if end not in (0, errno.ECONNREFUSED)}:
        port, end = next(iter(failed.items()))
        why = os.strerror(end)
        return red("ports", f"{host}:{port} ({key}) is not reached: {why}; see cable, address and firewall")
    if closed := [port for port, end in ends.items() if end]:
        silent = ", ".join(map(str, closed))
        said = f"{host} ({key}) is reached; nobody listens yet on {silent}"
        return yellow("ports", f"{said}: start `ptychoflow {part}` there")
    return green("ports", f"{host} ({key}) is reached on {', '.join(map(str, ends))}")


def _connect(host: str, port: int) -> int:
    """Return the number of the error with which a connection ends, 0 for none."""
    try:
        with closing(socket.create_connection((host, port), CONNECT_TIMEOUT_S)):
            return 0
    except TimeoutError:
        return errno.ETIMEDOUT
    except OSError as error:
        return error.errno or errno.EHOSTUNREACH


def _by_route(network: NetworkSettings) -> tuple[str | None, str]:
    for key in ("trainer_host", "acquisition_host", "hub_host"):
        host = getattr(network, key)
        address = _resolve(host)
        if address is None or interface_of(address) is not None:
            continue
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((address, 9))
            except OSError as error:
                return None, f"no way to {host}: {error.strerror}"
            return interface_of(probe.getsockname()[0]), f"the way to {host}"
    return None, "the other ranks' hosts are not in the configuration"


def _spans_hosts(network: NetworkSettings) -> bool:
    return not all(is_loopback(getattr(network, key)) for key in PORTS_OF_HOST)


def _resolve(host: str) -> str | None:
    try:
        return str(socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)[0][4][0])
    except (OSError, UnicodeError):  # the latter of a name that cannot be one, as of two dots
        return None
