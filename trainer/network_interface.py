"""Which interface the ranks use among themselves: gloo, NCCL, UCX and the rehearsal buffer the same one.

gloo by itself takes the address that this host's name stands for. On Debian that is 127.0.1.1, which no other host
reaches; elsewhere it is one that other hosts reach, also where all ranks are on this one.
"""

from __future__ import annotations

import ipaddress
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from torch.distributed.distributed_c10d import Store

from ptychoflow.buffer.transport.host_interfaces import addresses_of, interface_addresses, interface_of
from ptychoflow.buffer.transport.own_address import INTERFACE_VARIABLE, find_own_address, named_interface
from ptychoflow.streaming.errors import UserError

log = logging.getLogger(__name__)

NCCL_VARIABLE = "NCCL_SOCKET_IFNAME"
LOOPBACK = "127.0.0.1"
PATIENCE_S = 900.0


@contextmanager
def shared_interface(
    setting: str | None, store: Store, *, rank: int, world_size: int, on_one_host: bool
) -> Iterator[None]:
    """Choose the interface, log it, and have all libraries use it within the context; collective.

    The first that applies: `setting`; the variable `GLOO_SOCKET_IFNAME`; loopback where all ranks are on this host; the
    interface by which this host reaches the one that has the store, or, on that host, the others.

    Args:
        setting: `network.interface`.
        store: of the ranks of this start.
        rank: this one.
        world_size: number of ranks.
        on_one_host: whether no rank is elsewhere.

    Raises:
        UserError: `setting` names nothing that this host has.
    """
    interface: str | None
    if setting is not None:
        interface, why = find_interface(setting), f"network.interface = {setting}"
    elif (named := named_interface()) is not None:
        interface, why = named, INTERFACE_VARIABLE
    elif on_one_host:
        interface, why = interface_of(LOOPBACK), "all ranks are on this host"
    else:
        own = find_own_address(
            store, "address", rank=rank, world_size=world_size, timeout_s=PATIENCE_S, missing="did not come"
        )
        interface, why = interface_of(own), f"the way to the other ranks is from {own}"
    if interface is None:  # outside Linux nobody tells; the libraries choose by themselves there
        log.info("rank %d of %d: the interface is left to the libraries", rank, world_size)
        yield
        return
    addresses = ", ".join(addresses_of(interface)) or "without an address"
    log.info("rank %d of %d uses the interface %s (%s): %s", rank, world_size, interface, addresses, why)
    variables = {INTERFACE_VARIABLE: interface, NCCL_VARIABLE: os.environ.get(NCCL_VARIABLE, f"={interface}")}
    before = {name: os.environ.get(name) for name in variables}
    os.environ |= variables
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def find_interface(setting: str) -> str:
    """Return the interface that a name, an address or a network stands for on this host.

    Raises:
        UserError: none of them is this host's.
    """
    own = interface_addresses()
    names = list(dict.fromkeys(one.interface for one in own))
    if setting in names:
        return setting
    try:
        network = ipaddress.ip_network(setting, strict=False)
    except ValueError:
        network = None
    for one in own:
        if network is not None and one.address in network:
            return one.interface
    there = ", ".join(f"{name} ({', '.join(addresses_of(name))})" for name in names)
    raise UserError(
        f"network.interface = {setting!r} is none of this host's interfaces, addresses or networks; it has {there}"
    )
