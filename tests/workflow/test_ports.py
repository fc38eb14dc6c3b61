"""Ports: free ones are chosen, taken ones are refused before anything starts."""

import socket
from collections.abc import Iterator

import pytest

from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.settings import PORT_FIELDS, NetworkSettings
from ptychoflow.workflow.launching.ports import (
    Place,
    choose_port,
    is_free,
    require_fixed,
    require_free,
    resolve_ports,
)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_every_port_gets_its_own_free_one_and_ranks_get_consecutive_ones() -> None:
    network = resolve_ports(NetworkSettings(), ranks=4)
    ports = [getattr(network, name) for name in PORT_FIELDS if name != "samples_port"]
    ports += range(network.samples_port, network.samples_port + 4)
    assert len(set(ports)) == len(PORT_FIELDS) + 3
    assert all(is_free(port) for port in ports)
    assert choose_port(network, ranks=4) not in ports


def test_fixed_ports_are_kept() -> None:
    fixed = resolve_ports(NetworkSettings(), ranks=1)
    assert resolve_ports(fixed, ranks=1) == fixed


def test_a_taken_port_is_named_with_its_setting(taken_port: int) -> None:
    with pytest.raises(UserError, match=f"port {taken_port} is in use.*network.weights_port"):
        resolve_ports(NetworkSettings(weights_port=taken_port), ranks=1)


def test_a_taken_port_of_a_later_rank_is_found(taken_port: int) -> None:
    with pytest.raises(UserError, match=f"port {taken_port} .*network.samples_port"):
        resolve_ports(NetworkSettings(samples_port=taken_port - 1), ranks=2)


def test_ipv6_hosts_can_be_checked() -> None:
    if not socket.has_ipv6:
        pytest.skip("this host has no IPv6")
    try:
        server = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this host has no IPv6 loopback address")
    with server:
        place = Place(server.getsockname()[1], "dashboard.port", "::1", "dashboard.host")
        with pytest.raises(UserError, match="in use on ::1"):
            require_free(place)
    require_free(place)


def test_parts_that_are_started_alone_need_fixed_ports() -> None:
    network = resolve_ports(NetworkSettings(), ranks=1)
    require_fixed(network)
    with pytest.raises(UserError, match=r"network\.frames_port, network\.fanout_port: port 0"):
        require_fixed(network.model_copy(update={"frames_port": 0, "fanout_port": 0}))
