"""Whether the parts of a run can be linked on this host: folder of sockets or keys, before anything starts."""

from __future__ import annotations

from collections.abc import Iterable

import zmq

from ptychoflow.streaming.access import SAMPLES, TELEMETRY, WEIGHTS
from ptychoflow.streaming.events import Part
from ptychoflow.streaming.keys import load_pair
from ptychoflow.streaming.settings import PORT_FIELDS, NetworkSettings
from ptychoflow.streaming.sockets import Sockets, require_unclaimed
from ptychoflow.streaming.telemetry import SPEAKERS


def require_links(network: NetworkSettings, parts: Iterable[Part]) -> None:
    """Listen for a moment where the parts will, on other ports; of files in a folder, see that nobody holds them.

    Args:
        network: with all ports chosen. The folder of sockets is made if it is not there.
        parts: that are to start on this host.

    Raises:
        UserError: the folder of sockets cannot be made, is not this user's alone or in use, a host is another one, or
            keys are missing.
    """
    if network.sockets_dir is not None:
        for name in PORT_FIELDS:
            require_unclaimed(network.sockets_dir, getattr(network, name))
        return
    hosts = {TELEMETRY: network.hub_host, SAMPLES: network.acquisition_host, WEIGHTS: network.trainer_host}
    with Sockets(network) as sockets:
        for access, host in hosts.items():
            sockets.bind(zmq.PULL, host, 0, access)
    if network.keys_dir is not None:
        for part in parts:
            load_pair(network.keys_dir, SPEAKERS[part])
