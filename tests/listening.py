"""What processes listen at."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterable

import psutil


def addresses_listened_at(processes: Iterable[psutil.Process]) -> set[str]:
    """Return the TCP addresses at which any of the processes listens, as `ADDRESS:PORT`."""
    found = set()
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            for one in process.net_connections("tcp"):
                if one.status == psutil.CONN_LISTEN:
                    found.add(f"{one.laddr.ip}:{one.laddr.port}")
    return found


def beyond_loopback(addresses: Iterable[str]) -> list[str]:
    """Return those of the addresses that other hosts may reach."""
    return [one for one in addresses if not ipaddress.ip_address(one.rpartition(":")[0]).is_loopback]
