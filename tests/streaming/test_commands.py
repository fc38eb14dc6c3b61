"""Commands over real sockets: everybody hears them, late joiners hear what holds, outsiders are not heard."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import zmq
from support import wait_until

from ptychoflow.streaming import sockets
from ptychoflow.streaming.codec import Codec
from ptychoflow.streaming.commands import (
    AnyCommand,
    CommandHub,
    CommandReceiver,
    CommandSender,
    FollowWeights,
    HubAway,
    Pause,
    Resume,
    RollBackWeights,
    SetRegime,
    StopRun,
    WriteCheckpoint,
)
from ptychoflow.streaming.events import Regime
from ptychoflow.streaming.keys import make_keys
from ptychoflow.streaming.messages import SCHEMA_VERSION
from ptychoflow.streaming.settings import NetworkSettings

EVERY_COMMAND = [
    Pause(), Resume(), SetRegime(Regime.LEARNING), RollBackWeights(7), FollowWeights(), WriteCheckpoint(), StopRun()
]  # fmt: skip


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def receive(receiver: CommandReceiver, count: int) -> list[AnyCommand]:
    got: list[AnyCommand] = []

    def enough() -> bool:
        if (command := receiver.poll(0.05)) is not None:
            got.append(command)
        return len(got) >= count

    wait_until(enough)
    return got


def joined(stack: ExitStack, network: NetworkSettings, sender: CommandSender) -> CommandReceiver:
    """Return a receiver that is known to listen: it has heard what holds."""
    receiver = stack.enter_context(closing(CommandReceiver(network)))
    sender.send(Resume())
    receive(receiver, 1)
    while receiver.poll(0.05) is not None:
        pass
    return receiver


def test_every_part_and_the_hub_get_every_command_in_order(network: NetworkSettings, stack: ExitStack) -> None:
    heard: list[AnyCommand] = []
    stack.enter_context(closing(CommandHub(network, on_command=heard.append)))
    sender = stack.enter_context(closing(CommandSender(network)))
    parts = [joined(stack, network, sender) for _ in range(3)]
    heard.clear()
    for part in parts:
        while part.poll(0.05) is not None:
            pass
    for command in EVERY_COMMAND:
        sender.send(command)
    for part in parts:
        assert receive(part, len(EVERY_COMMAND)) == EVERY_COMMAND
    wait_until(lambda: len(heard) == len(EVERY_COMMAND))
    assert heard == EVERY_COMMAND


def test_who_joins_late_hears_what_holds_and_nothing_else(network: NetworkSettings, stack: ExitStack) -> None:
    heard: list[AnyCommand] = []
    stack.enter_context(closing(CommandHub(network, on_command=heard.append)))
    sender = stack.enter_context(closing(CommandSender(network)))
    commands = [Resume(), Pause(), WriteCheckpoint(), RollBackWeights(3), FollowWeights(), SetRegime(Regime.MONITORING)]
    for command in commands:
        sender.send(command)
    wait_until(lambda: heard == commands)
    late = stack.enter_context(closing(CommandReceiver(network)))
    assert set(map(repr, receive(late, 3))) == set(map(repr, (Pause(), FollowWeights(), SetRegime(Regime.MONITORING))))
    assert late.poll(0.1) is None


def test_a_command_that_nobody_takes_in_is_refused_and_not_kept(network: NetworkSettings, stack: ExitStack) -> None:
    sender = stack.enter_context(closing(CommandSender(network)))
    with pytest.raises(HubAway, match="does not take commands now"):
        sender.send(StopRun())
    heard: list[AnyCommand] = []
    stack.enter_context(closing(CommandHub(network, on_command=heard.append)))
    sender.send(Pause())
    wait_until(lambda: bool(heard))
    assert heard == [Pause()]


def test_malformed_commands_are_counted_and_dropped(network: NetworkSettings, stack: ExitStack) -> None:
    heard: list[AnyCommand] = []
    hub = stack.enter_context(closing(CommandHub(network, on_command=heard.append)))
    sender = stack.enter_context(closing(CommandSender(network)))
    context = stack.enter_context(zmq.Context())
    outsider = stack.enter_context(context.socket(zmq.PUSH))
    outsider.connect(f"tcp://127.0.0.1:{network.commands_port}")
    header = Codec[AnyCommand](AnyCommand).encode(RollBackWeights(1))[0]
    for wrong in (
        [b""],
        [b"\x80"],
        [bytes(header).replace(b"schema" + bytes([SCHEMA_VERSION]), b"schema\x63")],
        [bytes(header).replace(b"roll_back_weights", b"roll_back_waights")],
        [bytes(header), b"surplus"],
    ):
        outsider.send_multipart(wrong)
    wait_until(lambda: hub.malformed == 5)
    sender.send(Pause())
    wait_until(lambda: heard == [Pause()])


@pytest.mark.timeout(60)
def test_the_heartbeats_of_encrypted_peers_do_not_make_the_hub_wait_for_a_command(
    network: NetworkSettings, stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first heartbeat of a peer that has sent nothing makes a socket with keys look readable.

    A hub that waited there told late joiners nothing, and did not end.
    """
    monkeypatch.setattr(sockets, "HEARTBEAT_INTERVAL_MS", 10)
    make_keys(tmp_path / "keys")
    encrypted = network.model_copy(update={"keys_dir": tmp_path / "keys"})
    stack.enter_context(closing(CommandHub(encrypted)))
    stack.enter_context(closing(CommandSender(encrypted))).send(Pause())
    stack.enter_context(closing(CommandSender(encrypted)))
    for _ in range(20):
        with closing(CommandReceiver(encrypted)) as late:
            assert receive(late, 1) == [Pause()]


def test_with_keys_only_their_holders_command_and_listen(
    network: NetworkSettings, stack: ExitStack, tmp_path: Path
) -> None:
    make_keys(tmp_path / "ours")
    make_keys(tmp_path / "theirs")
    ours, theirs = (network.model_copy(update={"keys_dir": tmp_path / name}) for name in ("ours", "theirs"))
    heard: list[AnyCommand] = []
    stack.enter_context(closing(CommandHub(ours, on_command=heard.append)))
    sender = stack.enter_context(closing(CommandSender(ours)))
    for foreign in (theirs, network):
        outsider = stack.enter_context(closing(CommandSender(foreign)))
        with pytest.raises(HubAway):
            outsider.send(StopRun())
    spy = stack.enter_context(closing(CommandReceiver(theirs)))
    part = joined(stack, ours, sender)
    sender.send(Pause())
    assert receive(part, 1) == [Pause()]
    assert spy.poll(0.2) is None
    assert StopRun() not in heard
