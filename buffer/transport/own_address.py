"""Under which address the ranks on other hosts reach this one."""

from __future__ import annotations

import os
import socket
from datetime import timedelta

from torch.distributed.distributed_c10d import PrefixStore, Store

from ptychoflow.buffer.transport.host_interfaces import addresses_of, interface_addresses, is_loopback

INTERFACE_VARIABLE = "GLOO_SOCKET_IFNAME"
"""Names the interface that gloo uses; the buffer uses the same."""
_DISCARD_PORT = 9


def named_interface() -> str | None:
    """The interface that `GLOO_SOCKET_IFNAME` names, the first one if there are several."""
    return os.environ.get(INTERFACE_VARIABLE, "").split(",")[0].strip() or None


def find_own_address(store: Store, key: str, *, rank: int, world_size: int, timeout_s: float, missing: str) -> str:
    """Return the address of this host under which the other ranks reach it; collective.

    It is an address of the interface that `GLOO_SOCKET_IFNAME` names, else the one from which this host reaches the
    store. Where that is loopback although ranks are on other hosts (a host that has the store, and resolves its own
    name to 127.0.1.1), it is the one from which this host reaches those.

    Args:
        store: of the group.
        key: in the store, the same on all ranks, and used for nothing else.
        rank: this one.
        world_size: number of ranks.
        timeout_s: how long to wait for the other ranks.
        missing: what is said of those that did not come.

    Raises:
        TimeoutError: this rank depends on the others' addresses, and some did not come.
        ValueError: the interface that is named has no address here.
    """
    own = _by_route(_host_of(store))
    interface = named_interface()
    if interface is not None:
        addresses = addresses_of(interface)
        if not addresses:
            there = ", ".join(f"{one.interface} ({one.address})" for one in interface_addresses())
            raise ValueError(f"{INTERFACE_VARIABLE}={interface}: no such interface with an address; there are {there}.")
        own = own if own in addresses else addresses[0]
    store.set(f"{key}/{rank}", own)
    if interface is not None or not is_loopback(own):
        return own
    keys = [f"{key}/{other}" for other in range(world_size)]
    wait_for(store, keys, timeout_s, missing)
    elsewhere = [address for address in (store.get(one).decode() for one in keys) if not is_loopback(address)]
    return _by_route(elsewhere[0]) if elsewhere else own


def wait_for(store: Store, keys: list[str], timeout_s: float, missing: str) -> None:
    """Wait until each rank has set its key; TimeoutError names the ranks that are `missing` after that."""
    try:
        store.wait(keys, timedelta(seconds=timeout_s))
    except RuntimeError as error:  # stores in memory and in files have no error of their own for this
        ranks = [rank for rank, key in enumerate(keys) if not store.check([key])]
        if not ranks:
            raise
        raise TimeoutError(f"Ranks {ranks} {missing} within {timeout_s} s.") from error


def _host_of(store: Store) -> str:
    while isinstance(store, PrefixStore):
        store = store.underlying_store
    return getattr(store, "host", None) or os.environ.get("MASTER_ADDR", "127.0.0.1")


def _by_route(host: str) -> str:
    """The address of this host on the way to another; nothing is sent."""
    family, _, _, _, address = socket.getaddrinfo(host, _DISCARD_PORT, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(address)
        return str(probe.getsockname()[0])
