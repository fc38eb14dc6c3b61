"""Which interface the ranks use: the one that is named, loopback on one host, else the one that leads to the others."""

from __future__ import annotations

import logging
import os
import re

import pytest
from torch.distributed import HashStore

from ptychoflow.buffer.transport import host_interfaces, own_address
from ptychoflow.buffer.transport.host_interfaces import addresses_of, interface_addresses, interface_of
from ptychoflow.buffer.transport.own_address import INTERFACE_VARIABLE, find_own_address
from ptychoflow.streaming.errors import UserError
from ptychoflow.trainer.network_interface import NCCL_VARIABLE, shared_interface

VARIABLES = (INTERFACE_VARIABLE, NCCL_VARIABLE)


@pytest.fixture(autouse=True)
def _nothing_named(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def chosen(setting=None, *, on_one_host=True):
    with shared_interface(setting, HashStore(), rank=0, world_size=1, on_one_host=on_one_host):
        return [os.environ[name] for name in VARIABLES]


@pytest.fixture
def outside():
    """An address of this host that is not loopback, and its interface."""
    for one in interface_addresses():
        if not one.address.is_loopback:
            return one
    pytest.skip("this host has no interface but loopback")


def test_ranks_of_one_host_use_loopback_and_the_variables_are_as_before_afterwards(caplog):
    caplog.set_level(logging.INFO)
    loopback = interface_of("127.0.0.1")
    assert chosen() == [loopback, f"={loopback}"]
    assert not set(VARIABLES) & set(os.environ)
    assert f"rank 0 of 1 uses the interface {loopback} (127.0.0.1" in caplog.text
    assert "all ranks are on this host" in caplog.text


def test_an_interface_is_named_by_its_name_its_address_or_its_network(outside):
    address = outside.address
    network = f"{address}/{24 if address.version == 4 else 64}"
    for setting in (outside.interface, str(address), network):
        assert chosen(setting) == [outside.interface, f"={outside.interface}"]


def test_the_setting_comes_before_the_variable_and_the_variable_before_what_is_found(outside, monkeypatch):
    monkeypatch.setenv(INTERFACE_VARIABLE, outside.interface)
    monkeypatch.setenv(NCCL_VARIABLE, "^docker")
    assert chosen() == [outside.interface, "^docker"]
    loopback = interface_of("127.0.0.1")
    assert chosen(loopback) == [loopback, "^docker"]
    assert os.environ[INTERFACE_VARIABLE] == outside.interface


@pytest.mark.parametrize("setting", ["nosuch0", "198.51.100.7", "198.51.100.0/24", "10.0.0.0/99", ""])
def test_what_this_host_does_not_have_is_one_line_that_names_what_it_has(setting):
    line = rf"network.interface = '{re.escape(setting)}' is none of this host's .*; it has .*127\.0\.0\.1"
    with pytest.raises(UserError, match=line):
        chosen(setting)


def test_ranks_of_several_hosts_use_the_interface_that_leads_to_the_store(outside, monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", str(outside.address))
    assert chosen(on_one_host=False) == [outside.interface, f"={outside.interface}"]


def test_a_host_that_resolves_the_stores_name_to_loopback_uses_the_way_to_the_others(outside, monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "127.0.1.1")
    store = HashStore()
    store.set("address/1", str(outside.address))
    own = find_own_address(store, "address", rank=0, world_size=2, timeout_s=5.0, missing="did not come")
    assert own == str(outside.address)
    assert store.get("address/0") == b"127.0.0.1"


def test_who_tells_no_address_is_named(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(TimeoutError, match=r"Ranks \[1, 2\] did not come within 0.2 s"):
        find_own_address(HashStore(), "address", rank=0, world_size=3, timeout_s=0.2, missing="did not come")


def test_the_buffer_announces_an_address_of_the_interface_that_gloo_uses(outside, monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "127.0.1.1")
    monkeypatch.setenv(INTERFACE_VARIABLE, outside.interface)
    own = find_own_address(HashStore(), "address", rank=0, world_size=2, timeout_s=0.2, missing="did not come")
    assert own in addresses_of(outside.interface)
    monkeypatch.setenv(INTERFACE_VARIABLE, "nosuch0")
    with pytest.raises(ValueError, match="GLOO_SOCKET_IFNAME=nosuch0: no such interface with an address; there are lo"):
        find_own_address(HashStore(), "address", rank=0, world_size=2, timeout_s=0.2, missing="did not come")


def test_ucx_uses_that_interface_and_every_active_rdma_adapter(outside, monkeypatch, tmp_path):
    ucx = pytest.importorskip("ptychoflow.buffer.transport.ucx", reason="UCXX is not installed")
    for name, state in (("mlx5_0", "4: ACTIVE"), ("mlx5_1", "1: DOWN")):
        port = tmp_path / name / "ports" / "1"
        port.mkdir(parents=True)
        (port / "state").write_text(state)
    monkeypatch.setattr(host_interfaces, "_RDMA_DEVICES", tmp_path)
    monkeypatch.delenv("UCX_NET_DEVICES", raising=False)
    assert "NET_DEVICES" not in ucx._configuration()
    monkeypatch.setenv(own_address.INTERFACE_VARIABLE, outside.interface)
    assert ucx._configuration()["NET_DEVICES"] == f"{outside.interface},mlx5_0:1"
    monkeypatch.setenv(own_address.INTERFACE_VARIABLE, interface_of("127.0.0.1"))
    assert ucx._configuration()["NET_DEVICES"] == interface_of("127.0.0.1")
    monkeypatch.setenv("UCX_NET_DEVICES", "all")
    assert "NET_DEVICES" not in ucx._configuration()
