"""The network interfaces of this host and their addresses."""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

_RDMA_DEVICES = Path("/sys/class/infiniband")
_ACTIVE = "ACTIVE"


class _SocketAddress(ctypes.Structure):
    _fields_ = [("family", ctypes.c_ushort), ("content", ctypes.c_ubyte * 26)]


class _Entry(ctypes.Structure):
    """Linux's `struct ifaddrs`."""


_Entry._fields_ = [
    ("next", ctypes.POINTER(_Entry)),
    ("name", ctypes.c_char_p),
    ("flags", ctypes.c_uint),
    ("address", ctypes.POINTER(_SocketAddress)),
    ("netmask", ctypes.c_void_p),
    ("other_end", ctypes.c_void_p),
    ("data", ctypes.c_void_p),
]


@dataclass(frozen=True)
class InterfaceAddress:
    """One address of one interface."""

    interface: str
    address: ipaddress.IPv4Address | ipaddress.IPv6Address


def interface_addresses() -> list[InterfaceAddress]:
    """The addresses of this host, those of an interface in the system's order; none outside Linux.

    Link-local IPv6 addresses are left out: they say nothing without the name of an interface.

    Raises:
        OSError: the system does not tell.
    """
    if sys.platform != "linux":
        return []
    library = ctypes.CDLL(None, use_errno=True)
    first = ctypes.POINTER(_Entry)()
    if library.getifaddrs(ctypes.byref(first)) != 0:
        raise OSError(ctypes.get_errno(), "getifaddrs failed")
    found, entry = [], first
    try:
        while entry:
            address = _address(entry.contents.address)
            if address is not None and not (address.version == 6 and address.is_link_local):
                found.append(InterfaceAddress(entry.contents.name.decode(), address))
            entry = entry.contents.next
    finally:
        library.freeifaddrs(first)
    return found


def interface_of(address: str) -> str | None:
    """The interface that has the address; all of loopback is that of its first address. None if no interface has it."""
    wanted = ipaddress.ip_address(address)
    for one in interface_addresses():
        if one.address == wanted or (wanted.is_loopback and one.address.is_loopback):
            return one.interface
    return None


def addresses_of(interface: str) -> list[str]:
    """The addresses of an interface, IPv4 first."""
    own = [one.address for one in interface_addresses() if one.interface == interface]
    return [str(address) for address in sorted(own, key=lambda address: address.version)]


def is_loopback(address: str) -> bool:
    """Whether only this host reaches the address."""
    return ipaddress.ip_address(address).is_loopback


def rdma_devices() -> list[str]:
    """The active ports of the RDMA adapters, as UCX names them: `mlx5_0:1`."""
    found = []
    for port in sorted(_RDMA_DEVICES.glob("*/ports/*")):
        with contextlib.suppress(OSError):
            if _ACTIVE in (port / "state").read_text(encoding="ascii"):
                found.append(f"{port.parent.parent.name}:{port.name}")
    return found


def _address(pointer: ctypes._Pointer[_SocketAddress]) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    if not pointer:
        return None
    content = bytes(pointer.contents.content)
    if pointer.contents.family == socket.AF_INET:
        return ipaddress.IPv4Address(content[2:6])  # after the port
    if pointer.contents.family == socket.AF_INET6:
        return ipaddress.IPv6Address(content[6:22])  # after the port and the flow
    return None
