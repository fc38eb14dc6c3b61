"""Commands: what people ask of a run while it goes on, from a dashboard over one hub to every part.

Every command is idempotent. A part that joins late, or comes back after a restart, is told again what holds.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Annotated

import msgspec
import zmq

from ptychoflow.streaming.access import COMMANDS, COMMANDS_FANOUT, Role
from ptychoflow.streaming.codec import Codec, ReceivingCodec
from ptychoflow.streaming.events import Regime
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.streaming.sockets import HEADER_ONLY_BYTES, Sockets, receive_now

log = logging.getLogger(__name__)

POLL_MS = 100
SEND_TIMEOUT_MS = 1000
MAX_MESSAGE_BYTES = 1 << 16


class Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all commands."""


class Pause(Command, tag="pause", frozen=True):
    """Acquire no frames until `Resume`; what has been acquired is learned from and imaged meanwhile."""


class Resume(Command, tag="resume", frozen=True):
    """Go on acquiring."""


class SetRegime(Command, tag="set_regime", frozen=True):
    """Keep to a regime from the next perspective on; None lets the edge's scores decide again."""

    regime: Regime | None


class RollBackWeights(Command, tag="roll_back_weights", frozen=True):
    """Edges infer with this version, whatever is published, until `FollowWeights`."""

    version: Annotated[int, msgspec.Meta(ge=0)]


class FollowWeights(Command, tag="follow_weights", frozen=True):
    """Edges infer with the newest version again."""


class WriteCheckpoint(Command, tag="write_checkpoint", frozen=True):
    """The trainer writes a checkpoint after the step that it is in."""


class StopRun(Command, tag="stop_run", frozen=True):
    """End all parts in order, as Ctrl-C does."""


AnyCommand = Pause | Resume | SetRegime | RollBackWeights | FollowWeights | WriteCheckpoint | StopRun
OnCommand = Callable[[AnyCommand], None]

SUBJECT_OF_STANDING: dict[type[Command], str] = {
    Pause: "acquisition",
    Resume: "acquisition",
    SetRegime: "regime",
    RollBackWeights: "weights",
    FollowWeights: "weights",
}
"""Commands that hold until the next one on the same subject."""


class HubAway(Exception):
    """Nobody took the command in: the launcher is gone, or has not started yet."""


class CommandSender:
    """Sends commands to the hub. Thread-safe.

    Args:
        network: hosts, ports and keys of the run; connects to `hub_host:commands_port`.
    """

    def __init__(self, network: NetworkSettings) -> None:
        self._codec: Codec[AnyCommand] = Codec(AnyCommand)
        self._lock = threading.Lock()
        self._sockets = Sockets(network)
        self._socket = self._sockets.connect(
            zmq.PUSH, network.hub_host, network.commands_port, COMMANDS, only_to_peers=True
        )
        self._socket.sndtimeo = SEND_TIMEOUT_MS

    def send(self, command: AnyCommand) -> None:
        """Hand a command to the hub; blocks for at most one second.

        A command is never kept for a hub that comes later: what was asked long ago may be wrong by then.

        Raises:
            HubAway: no hub is there.
        """
        with self._lock:
            try:
                self._socket.send_multipart(self._codec.encode(command))
            except zmq.Again:
                raise HubAway("the run does not take commands now: its launcher has ended or not yet started") from None

    def close(self) -> None:
        """Close the socket; what was sent gets two seconds to leave."""
        with self._lock:
            self._sockets.close(linger_s=2.0)


class CommandHub:
    """Passes commands on to all parts, in a thread of its own.

    Args:
        network: hosts, ports and keys of the run; binds `hub_host` at `commands_port` and `commands_fanout_port`.
        on_command: called in the hub's thread for every command.

    Raises:
        UserError: a port is in use.
    """

    def __init__(self, network: NetworkSettings, *, on_command: OnCommand | None = None) -> None:
        self._on_command = on_command
        self._codec: ReceivingCodec[AnyCommand] = ReceivingCodec(AnyCommand, "commands", MAX_MESSAGE_BYTES)
        self._standing: dict[str, AnyCommand] = {}
        self._sockets = Sockets(network.model_copy(update={"max_message_bytes": HEADER_ONLY_BYTES}))
        self._pull = self._sockets.bind(zmq.PULL, network.hub_host, network.commands_port, COMMANDS)
        self._fanout = self._sockets.bind(zmq.XPUB, network.hub_host, network.commands_fanout_port, COMMANDS_FANOUT)
        # without it the second part to subscribe would go unnoticed
        self._fanout.setsockopt(zmq.XPUB_VERBOSE, 1)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="command-hub", daemon=True)
        self._thread.start()

    @property
    def malformed(self) -> int:
        """Commands that could not be read."""
        return self._codec.malformed

    def close(self) -> None:
        """Stop passing on; what was passed on gets half a second to leave."""
        self._stop.set()
        self._thread.join()
        self._sockets.close(linger_s=0.5)

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._pull, zmq.POLLIN)
        poller.register(self._fanout, zmq.POLLIN)
        while not self._stop.is_set():
            ready = dict(poller.poll(POLL_MS))
            if self._pull in ready and (parts := receive_now(self._pull)):
                self._pass_on(parts)
            if self._fanout in ready and (parts := receive_now(self._fanout)) and parts[0][:1] == b"\x01":
                self._repeat_standing()

    def _pass_on(self, parts: list[bytes]) -> None:
        decoded = self._codec.read(parts)
        if decoded is None:
            return
        command = decoded.body
        log.info("command: %s", command)
        if type(command) in SUBJECT_OF_STANDING:
            self._standing[SUBJECT_OF_STANDING[type(command)]] = command
        self._fanout.send_multipart(parts)
        if self._on_command is not None:
            self._on_command(command)

    def _repeat_standing(self) -> None:
        for command in self._standing.values():
            self._fanout.send_multipart(self._codec.encode(command))


class CommandReceiver:
    """Receives the commands to all parts; each part heeds those that concern it. Use it from one thread at a time.

    Args:
        network: hosts, ports and keys of the run; connects to `hub_host:commands_fanout_port`.
        roles: those to speak as, of which the first is proved whose secret is there; all that may listen by default.

    Raises:
        UserError: the folder of keys holds none for these roles, or one that cannot be used.
    """

    def __init__(self, network: NetworkSettings, *, roles: Iterable[Role] | None = None) -> None:
        self._codec: ReceivingCodec[AnyCommand] = ReceivingCodec(AnyCommand, "commands", MAX_MESSAGE_BYTES)
        self._sockets = Sockets(network.model_copy(update={"max_message_bytes": HEADER_ONLY_BYTES}))
        self._socket = self._sockets.connect(
            zmq.SUB, network.hub_host, network.commands_fanout_port, COMMANDS_FANOUT, roles=roles
        )
        self._socket.subscribe(b"")

    def poll(self, timeout_s: float = 0.0) -> AnyCommand | None:
        """Return the next command, or None after `timeout_s` seconds without one."""
        if not self._socket.poll(int(timeout_s * 1000)) or (parts := receive_now(self._socket)) is None:
            return None
        decoded = self._codec.read(parts)
        return None if decoded is None else decoded.body

    def close(self) -> None:
        """Close the socket."""
        self._sockets.close()
