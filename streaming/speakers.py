"""Which role a message is from, as the key that its connection was made with proves."""

from __future__ import annotations

from collections.abc import Iterable

import zmq

from ptychoflow.streaming.access import Access, Role
from ptychoflow.streaming.keys import public_keys
from ptychoflow.streaming.settings import NetworkSettings

USER_ID = "User-Id"
"""Property of a message where pyzmq's authenticator leaves the key of its sender, in Z85."""


class Speakers:
    """Those who may connect to a bound socket, told apart by their keys. Without keys, everybody is believed.

    Args:
        network: hosts, ports and keys of the run.
        access: who may connect.

    Raises:
        UserError: one of the public keys is no key file.
    """

    def __init__(self, network: NetworkSettings, access: Access) -> None:
        directory = network.keys_dir if network.encrypts else None
        self._keys = {role: public_keys(directory, [role]) for role in access.clients} if directory else None

    def include(self, part: zmq.Frame, roles: Iterable[Role]) -> bool:
        """Return whether one of these roles has sent a message.

        Args:
            part: of the message.
            roles: of those who may connect.
        """
        if self._keys is None:
            return True
        key = str(part.get(USER_ID)).encode()
        return any(key in self._keys[role] for role in roles)
