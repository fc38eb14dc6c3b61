"""Each host has the secrets of its own roles alone, and each socket admits the roles that may connect to it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import numpy as np
import pytest
import zmq
from support import wait_until

from ptychoflow.streaming import access, seldom
from ptychoflow.streaming.access import ACKNOWLEDGEMENTS, TELEMETRY, Access, Role
from ptychoflow.streaming.codec import Codec
from ptychoflow.streaming.commands import (
    AnyCommand,
    CommandHub,
    CommandReceiver,
    CommandSender,
    HubAway,
    Pause,
    StopRun,
)
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.events import Part, PartState, PartStatus, RankCounts, Telemetry
from ptychoflow.streaming.inbox import Inbox
from ptychoflow.streaming.keys import load_pair, load_public, make_keys
from ptychoflow.streaming.messages import (
    Acknowledge,
    ControlMessage,
    FirstPassImage,
    FirstPassResidual,
    FirstPassScore,
    Frames,
    Hello,
    Samples,
)
from ptychoflow.streaming.publisher import Publisher
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.streaming.sockets import Sockets
from ptychoflow.streaming.telemetry import TelemetryHub, TelemetrySender, TelemetrySubscriber
from ptychoflow.streaming.weights_channel import WeightsClient, WeightsServer

SOCKETS = [value for value in vars(access).values() if isinstance(value, Access)]
Host = Callable[..., NetworkSettings]


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    make_keys(tmp_path / "made")
    return tmp_path / "made"


@pytest.fixture
def host(network: NetworkSettings, keys: Path, tmp_path: Path) -> Host:
    """What a host has that has some roles."""

    def given(*roles: Role) -> NetworkSettings:
        folder = tmp_path / "-".join(roles)
        if not folder.exists():
            shutil.copytree(keys / "public", folder / "public")
            for role in roles:
                shutil.copy2(keys / f"{role}.key_secret", folder)
        return network.model_copy(update={"keys_dir": folder})

    return given


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as open_things:
        yield open_things


def test_a_run_needs_no_secret_of_another_role(host: Host, stack: ExitStack, tmp_path: Path) -> None:
    log = tmp_path / "telemetry.jsonl"
    hub, edge, trainer = host(Role.HUB), host(Role.EDGE), host(Role.TRAINER)
    stack.enter_context(closing(TelemetryHub(hub, jsonl=log)))
    stack.enter_context(closing(CommandHub(hub)))
    weights = stack.enter_context(closing(WeightsServer(trainer)))
    client = stack.enter_context(closing(WeightsClient(edge, edge="edge")))
    publisher = stack.enter_context(
        Publisher(host(Role.ACQUISITION), spool_dir=tmp_path / "spool", memory_bytes=1 << 20)
    )
    inboxes = [
        stack.enter_context(Inbox(edge, consumer="edge", port=edge.frames_port)),
        stack.enter_context(Inbox(trainer, consumer="rank-0", port=trainer.samples_port, world_size=1)),
    ]
    pattern = {"diffraction": np.ones((1, 2, 2), np.uint16)}
    publisher.post_to_edge(Frames(0, 0.0, 0.0), pattern)
    publisher.post_samples(Samples(0), pattern)
    for inbox in inboxes:
        found = []

        def came(inbox: Inbox = inbox, found: list[object] = found) -> bool:
            publisher.pump(0.0)
            found.append(inbox.receive(0.01))
            return found[-1] is not None

        wait_until(came)
    wait_until(lambda: client.poll(0.01) is None and client.trainer_away_s == 0.0)
    assert weights.served == 0
    with closing(CommandSender(host(Role.DASHBOARD))) as sender:
        sender.send(Pause())
    viewers = [host(role) for role in (Role.DASHBOARD, Role.OUTPUTS)]
    subscribers = [stack.enter_context(closing(TelemetrySubscriber(viewer))) for viewer in viewers]
    own_part = {
        Role.ACQUISITION: Part.ACQUISITION,
        Role.TRAINER: Part.TRAINER,
        Role.EDGE: Part.EDGE,
        Role.OUTPUTS: Part.OUTPUTS,
    }
    for role, speaks_for in own_part.items():
        receiver = stack.enter_context(closing(CommandReceiver(host(role))))
        wait_until(lambda receiver=receiver: receiver.poll(0.05) == Pause())
        part = stack.enter_context(closing(TelemetrySender(host(role), part=speaks_for)))
        for subscriber in subscribers:

            def heard(part: TelemetrySender = part, subscriber: TelemetrySubscriber = subscriber) -> bool:
                part.send(PartStatus(PartState.RUNNING))
                return subscriber.receive(0.05) is not None

            wait_until(heard)


@pytest.mark.parametrize(
    ("role", "consumer", "world_size"), [(Role.EDGE, "rank-0", 1), (Role.TRAINER, "edge", 0)], ids=["edge", "trainer"]
)
def test_a_key_does_not_pass_for_a_consumer_of_another_role(
    host: Host, stack: ExitStack, tmp_path: Path, role: Role, consumer: str, world_size: int
) -> None:
    network = host(role)
    publisher = stack.enter_context(
        Publisher(host(Role.ACQUISITION), spool_dir=tmp_path / "spool", memory_bytes=1 << 20)
    )
    pattern = {"diffraction": np.ones((1, 2, 2), np.uint16)}
    publisher.post_to_edge(Frames(0, 0.0, 0.0), pattern)
    publisher.post_samples(Samples(0), pattern)
    impostor = stack.enter_context(Sockets(network)).connect(
        zmq.PUSH, network.acquisition_host, network.acknowledgements_port, ACKNOWLEDGEMENTS
    )
    codec: Codec[ControlMessage] = Codec(ControlMessage)
    said: list[ControlMessage] = [Hello(consumer, "s", world_size, 0, 0), Acknowledge(consumer, "s", [0])]
    if role is Role.TRAINER:
        said += [FirstPassScore(0, 1.0, 1.0, 1.0), FirstPassResidual(0, 1, 1.0), FirstPassImage(0, (0, 0))]
    for message in said:
        impostor.send_multipart(codec.encode(message))

    def refused() -> bool:
        publisher.pump(0.01)
        return publisher.malformed == len(said)

    wait_until(refused)
    assert (publisher.unacknowledged, publisher.world_size) == (2, 0)
    assert not publisher.scores
    assert not publisher.images


def test_a_host_with_all_keys_speaks_with_that_of_each_role(host: Host, stack: ExitStack, tmp_path: Path) -> None:
    network = host(*Role)
    publisher = stack.enter_context(Publisher(network, spool_dir=tmp_path / "spool", memory_bytes=1 << 20))
    stack.enter_context(Inbox(network, consumer="rank-0", port=network.samples_port, world_size=1))
    edge = stack.enter_context(Inbox(network, consumer="edge", port=network.frames_port))
    edge.report_residual(FirstPassResidual(0, 1, 1.0))

    def both_are_there() -> bool:
        publisher.pump(0.01)
        return publisher.everybody_is_there and bool(publisher.scores)

    wait_until(both_are_there)
    log = tmp_path / "telemetry.jsonl"
    stack.enter_context(closing(TelemetryHub(network, jsonl=log)))
    for part in Part:
        with closing(TelemetrySender(network, part=part)) as sender:
            sender.send(PartStatus(PartState.RUNNING, f"as {part}"))
    assert [f"as {part}" in log.read_text() for part in Part] == [True] * len(Part)


def test_the_hub_believes_a_part_by_its_key(host: Host, stack: ExitStack, tmp_path: Path) -> None:
    log = tmp_path / "telemetry.jsonl"
    hub = stack.enter_context(closing(TelemetryHub(host(Role.HUB), jsonl=log)))
    network = host(Role.OUTPUTS)
    impostor = stack.enter_context(Sockets(network)).connect(
        zmq.DEALER, network.hub_host, network.telemetry_port, TELEMETRY
    )
    codec: Codec[Telemetry] = Codec(Telemetry)
    counts = RankCounts(trained=10**6, validation=0, duplicates=0, rejected=0, ranks=1, final=True)
    impostor.send_multipart(codec.encode(Telemetry(0.0, Part.TRAINER, 0, counts)))
    impostor.send_multipart(codec.encode(Telemetry(0.0, Part.WORKFLOW, 0, PartStatus(PartState.DONE, "all fine"))))
    impostor.send_multipart(codec.encode(Telemetry(0.0, Part.OUTPUTS, 0, PartStatus(PartState.DONE, "of its own"))))
    wait_until(lambda: "of its own" in log.read_text())
    assert hub.malformed == 2
    assert len(log.read_text().splitlines()) == 1


def open_as(context: zmq.Context[zmq.Socket[bytes]], keys: Path, role: Role, owner: Role) -> zmq.Socket[bytes]:
    """A socket of somebody who has the secret of a role, and does not keep to our rules."""
    pair = load_pair(keys, [role])
    socket = context.socket(zmq.PUSH)
    socket.curve_publickey, socket.curve_secretkey = pair.public, pair.secret
    socket.curve_serverkey = load_public(keys, owner)
    socket.linger = 0
    return socket


@pytest.mark.parametrize("one", SOCKETS, ids=lambda one: one.name)
def test_a_socket_admits_its_roles_and_no_others(one: Access, host: Host, keys: Path, stack: ExitStack) -> None:
    network = host(one.owner)
    sockets = stack.enter_context(Sockets(network))
    bound = sockets.bind(zmq.PULL, "127.0.0.1", network.frames_port, one)
    context = stack.enter_context(zmq.Context())
    for role in Role:
        speaker = stack.enter_context(open_as(context, keys, role, one.owner))
        monitor = speaker.get_monitor_socket(
            zmq.Event.HANDSHAKE_SUCCEEDED | zmq.Event.HANDSHAKE_FAILED_AUTH | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
        )
        speaker.connect(f"tcp://127.0.0.1:{network.frames_port}")
        assert monitor.poll(20_000), "no answer to the handshake"
        if role in one.clients:
            speaker.send(role.encode())
            assert bound.poll(20_000)
            assert bound.recv() == role.encode()
        else:
            with suppress(zmq.Again):
                speaker.send(role.encode(), zmq.DONTWAIT)
            assert not bound.poll(50)
        speaker.disable_monitor()
        monitor.close(0)


def test_the_key_of_an_edge_commands_nothing(host: Host, keys: Path, stack: ExitStack) -> None:
    heard: list[AnyCommand] = []
    network = host(Role.HUB)
    stack.enter_context(closing(CommandHub(network, on_command=heard.append)))
    with pytest.raises(UserError, match=r"holds no hub.key_secret or dashboard.key_secret"):
        CommandSender(host(Role.EDGE))
    disguised = host(Role.EDGE, Role.POSITIONS)
    assert disguised.keys_dir is not None
    shutil.copy2(keys / "edge.key_secret", disguised.keys_dir / "dashboard.key_secret")
    impostor = stack.enter_context(closing(CommandSender(disguised)))
    with pytest.raises(HubAway, match="does not take commands now"):
        impostor.send(StopRun())
    with closing(CommandSender(host(Role.DASHBOARD))) as sender:
        sender.send(Pause())
    wait_until(lambda: bool(heard))
    assert heard == [Pause()]


def test_a_host_serves_no_socket_of_another_role(host: Host) -> None:
    with pytest.raises(UserError, match=r"holds no trainer.key_secret: copy it"):
        WeightsServer(host(Role.ACQUISITION))


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_secret_that_others_can_read_is_refused_with_the_command_to_run(host: Host, mode: int) -> None:
    network = host(Role.HUB)
    assert network.keys_dir is not None
    secret = network.keys_dir / "hub.key_secret"
    secret.chmod(mode)
    line = rf"^{secret} has mode {mode:o}, others can read it: chmod 600 {secret}, or make new keys if others have$"
    with pytest.raises(UserError, match=line):
        CommandHub(network)
    secret.chmod(0o600)
    CommandHub(network).close()


@pytest.mark.parametrize("name", ["server", "client"])
def test_keys_of_an_earlier_version_are_one_line_that_says_what_to_do(
    network: NetworkSettings, tmp_path: Path, name: str
) -> None:
    (tmp_path / f"{name}.key_secret").touch(mode=0o600)
    line = "holds keys of an earlier version, which had one pair for all: make new ones with `ptychoflow keys NEW`"
    with pytest.raises(UserError, match=line):
        CommandSender(network.model_copy(update={"keys_dir": tmp_path}))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b'curve\n    public-key = "short"\n'])
def test_a_damaged_key_file_is_one_line(host: Host, content: bytes) -> None:
    network = host(Role.DASHBOARD)
    assert network.keys_dir is not None
    (network.keys_dir / "public" / "hub.key").write_bytes(content)
    with pytest.raises(UserError, match=r"public/hub\.key"):
        CommandSender(network)


def test_a_flood_of_strangers_does_not_fill_the_log(
    host: Host, keys: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seldom, "PERIOD_S", 0.5)
    network, context = host(Role.HUB), zmq.Context()

    def come() -> None:
        stranger = context.socket(zmq.DEALER)
        stranger.curve_publickey, stranger.curve_secretkey = zmq.curve_keypair()
        stranger.curve_serverkey = load_public(keys, Role.HUB)
        stranger.connect(network.endpoint(network.hub_host, network.telemetry_port))

    with Sockets(network) as sockets, ExitStack() as stack:
        stack.callback(context.destroy, linger=0)
        sockets.bind(zmq.ROUTER, network.hub_host, network.telemetry_port, TELEMETRY)
        began_s = time.monotonic()
        wait_until(lambda: come() or "more since the last" in caplog.text)
        periods = (time.monotonic() - began_s) // 0.5 + 1
    assert caplog.text.count("refused: somebody") <= periods + 1
