"""Channels served over PvAccess."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.libraries import library


def serve_channels(
    channels: Mapping[str, Any], *, host: str, port: int, choose: str, where: str = ""
) -> tuple[Any, int]:
    """Serve channels by their names, on this address alone and announced nowhere; port 0 takes a free one.

    Returns:
        The server, to be stopped, and its port.

    Raises:
        UserError: without p4p; if it cannot listen there, with `where` before it; if the port is in use, with `choose`.
    """
    own = {
        "EPICS_PVAS_INTF_ADDR_LIST": host,
        "EPICS_PVAS_SERVER_PORT": str(port),
        "EPICS_PVAS_BROADCAST_PORT": "5076",
        "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO",
        "EPICS_PVAS_BEACON_ADDR_LIST": "",
    }
    try:
        server = library("p4p.server", extra="epics").Server(providers=[dict(channels)], conf=own, useenv=False)
    except RuntimeError as error:
        raise UserError(f"{where}cannot listen on {host}:{port}: {error}") from error
    taken = int(server.conf()["EPICS_PVAS_SERVER_PORT"])
    if port not in (0, taken):
        server.stop()
        raise UserError(f"port {port} is in use; {choose}")
    return server, taken
