"""Whoever speaks to the parts of a run by hand, in place of another part."""

from __future__ import annotations

from contextlib import ExitStack
from typing import NamedTuple

import zmq

from ptychoflow.streaming.codec import Codec
from ptychoflow.streaming.inbox import Inbox
from ptychoflow.streaming.messages import ControlMessage, Hello
from ptychoflow.streaming.publisher import EDGE
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.streaming.sockets import Socket, Sockets


def stranger_at(network: NetworkSettings, stack: ExitStack, port: int, kind: int = zmq.PUSH) -> Socket:
    """Return a socket that is connected to a port of the run."""
    return stack.enter_context(Sockets(network)).connect(kind, "127.0.0.1", port)


class EdgeByHand(NamedTuple):
    """An edge's inbox, and the acquisition's sockets at its other end."""

    inbox: Inbox
    control: Socket
    data: Socket
    session: str
    """Of the inbox, as it said."""


def edge_by_hand(network: NetworkSettings, stack: ExitStack) -> EdgeByHand:
    """Open an edge's inbox that has announced itself."""
    sockets = stack.enter_context(Sockets(network))
    control = sockets.bind(zmq.PULL, network.acquisition_host, network.acknowledgements_port)
    data = sockets.bind(zmq.PUSH, network.acquisition_host, network.frames_port)
    inbox = stack.enter_context(Inbox(network, consumer=EDGE, port=network.frames_port))
    hello = Codec[ControlMessage](ControlMessage).decode(control.recv_multipart()).body
    assert isinstance(hello, Hello)
    return EdgeByHand(inbox, control, data, hello.session)
