"""Chooses the transport and connects the ranks."""

from __future__ import annotations

from typing import get_args

from buffer.local_store import LocalStore
from buffer.membership import Membership
from buffer.transport.local import LocalTransport
from buffer.transport.transport import Transport, TransportName


def open_transport(name: TransportName, member: Membership, store: LocalStore) -> Transport:
    """The transport of that name, connected to all ranks of the group; ValueError for an unknown name."""
    if name not in get_args(TransportName):
        raise ValueError(f"Transport {name!r} is unknown; use one of {', '.join(get_args(TransportName))}.")
    return LocalTransport()
