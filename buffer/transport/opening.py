"""Chooses the transport and connects the ranks."""

from __future__ import annotations

import importlib.util
import logging
import os
from typing import get_args

import numpy as np

from ptychoflow.buffer.local_store import LocalStore
from ptychoflow.buffer.membership import Membership
from ptychoflow.buffer.names import TransportName
from ptychoflow.buffer.options import Options
from ptychoflow.buffer.transport.item_channel import ItemChannel
from ptychoflow.buffer.transport.local import LocalTransport
from ptychoflow.buffer.transport.mesh import MeshTransport
from ptychoflow.buffer.transport.rendezvous import meet
from ptychoflow.buffer.transport.tcp import TcpItemChannel
from ptychoflow.buffer.transport.transport import Transport

_log = logging.getLogger(__name__)


def check_transport(name: TransportName) -> None:
    """ValueError for an unknown name, or for "ucx" where UCXX is not installed."""
    if name not in get_args(TransportName):
        raise ValueError(f"Transport {name!r} is unknown; use one of {', '.join(get_args(TransportName))}.")
    if name == "ucx" and not _has_ucxx():
        raise ValueError('Transport "ucx" needs the package ucxx, which is not installed; use "tcp" or "auto".')


def open_transport(
    name: TransportName, member: Membership, store: LocalStore, *, options: Options, serve_rng: np.random.Generator
) -> Transport:
    """The transport of that name, connected to all ranks of the group; a rank alone needs none but "local"."""
    if name == "local" or member.store is None or member.world_size == 1:
        return LocalTransport()
    channel = _make_channel(name)
    peers = meet(
        member.store,
        rank=member.rank,
        world_size=member.world_size,
        description=f"{channel.name}, {type(store.policy).__name__}, {store.schema}, {options}",
        channel_address=channel.address,
        timeout_s=options.timeout_s,
    )
    channel.connect(peers.channel_addresses)
    return MeshTransport(
        peers,
        channel,
        store,
        serve_rng=serve_rng,
        largest_draw=options.representatives,
        timeout_s=options.timeout_s,
    )


def _make_channel(name: TransportName) -> ItemChannel:
    if name == "auto":
        name = "ucx" if _has_ucxx() else "tcp"
        _log.info("rehearsal buffer: transport %s chosen", name)
    if name == "tcp":
        return TcpItemChannel()
    os.environ.setdefault("UCX_WARN_UNUSED_ENV_VARS", "n")  # UCXX sets variables that UCX then warns of
    from ptychoflow.buffer.transport.ucx import UcxItemChannel  # noqa: PLC0415  an optional dependency

    return UcxItemChannel()


def _has_ucxx() -> bool:
    return importlib.util.find_spec("ucxx") is not None
