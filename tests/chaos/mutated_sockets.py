"""Sends messages that nobody can read, and events that nobody sends, to real receivers; good ones come in between.

    PYTHONPATH=src:tests:tests/dashboard python tests/chaos/mutated_sockets.py --count 1000000 --seed 1

Of every hundred messages one is good: after each round every receiver must be alive, and have taken in each good one,
and memory must not grow. `--events` go into the state of a page and a summary, `--requests` to the page's interface,
`--viewers` come to a page that is served. What does not hold ends the program with a word and the seed. A campaign that
was broken off goes on with the round in which it was, and prints a table at its end. A short one is a test.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from queue import Queue
from urllib.parse import urlsplit

import msgspec
import numpy as np
import psutil
import zmq
from broken_messages import ARRAYS, broken
from fastapi.testclient import TestClient
from odd_requests import OddRequests
from odd_viewers import OddViewers
from speaking import telemetry
from strangers import edge_by_hand, stranger_at
from support import free_block, free_ports
from test_hostile_images import Stranger

from ptychoflow.dashboard.app import create_app
from ptychoflow.dashboard.runs import Runs
from ptychoflow.dashboard.server import serve_earlier_run
from ptychoflow.dashboard.settings import DashboardSettings
from ptychoflow.dashboard.state import DashboardState, StateCursor
from ptychoflow.streaming.codec import Codec
from ptychoflow.streaming.commands import AnyCommand, CommandHub, CommandReceiver, RollBackWeights
from ptychoflow.streaming.durable_file import write_durably
from ptychoflow.streaming.events import Telemetry, WarningRaised
from ptychoflow.streaming.messages import ControlMessage, DataMessage, FirstPassScore, Frames, Weights
from ptychoflow.streaming.publisher import Publisher
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.streaming.sockets import Socket, Sockets
from ptychoflow.streaming.telemetry import TelemetryHub, TelemetrySubscriber
from ptychoflow.streaming.weights_channel import WeightsClient, WeightsServer

MALFORMED_IN_A_ROW = 99
ROUND = 8_000
"""Messages after which receivers are asked whether they have had all of them."""
TIME_LIMIT_S = 600.0
"""For a receiver to take in a round, on a machine that is busy with other things."""
SUBSCRIPTION_MS = 10_000
AT_ONCE = 64
GROWTH_BYTES = 64 << 20
"""What the process may take beyond what it has after the first rounds."""
SETTLED_ROUNDS = 2


class NotHeld(Exception):
    """What must hold after every round does not."""


@dataclass
class Receiver:
    """A real receiver that a stranger can reach."""

    name: str
    kind: str
    """Of the messages, as `broken_messages` has it."""
    send: Callable[[list[bytes]], None]
    """Raises zmq.Again where the receiver has to work first."""
    good: Callable[[int], list[bytes]]
    """A good message with a number."""
    turn: Callable[[], object]
    """Let it work, if it has no thread of its own."""
    heard: Callable[[], int]
    """How many good ones it has taken in."""
    malformed: Callable[[], int] | None
    """How many others, if it counts them."""
    sent: int = 0
    sent_good: int = 0

    def feed(self, count: int, chance: random.Random) -> None:
        """Send messages, and wait until they have been taken in; raise NotHeld if they are not."""
        deadline_s = time.monotonic() + TIME_LIMIT_S
        for number in range(count):
            good = number % (MALFORMED_IN_A_ROW + 1) == MALFORMED_IN_A_ROW
            message = self.good(self.sent_good) if good else broken(self.kind, chance)
            while not self._can_send(message):
                self._work(deadline_s)
            self.sent_good, self.sent = self.sent_good + good, self.sent + (not good)
        while not self._has_had_all():
            self._work(deadline_s)

    def _can_send(self, message: list[bytes]) -> bool:
        try:
            self.send(message)
        except zmq.Again:
            return False
        return True

    def _work(self, deadline_s: float) -> None:
        self.turn()
        if time.monotonic() > deadline_s:
            counted = "does not count them" if self.malformed is None else f"counted {self.malformed()}"
            raise NotHeld(
                f"{self.name}: took in {self.heard()} of {self.sent_good} good messages and {counted} of "
                f"{self.sent} broken ones within {TIME_LIMIT_S:.0f} s"
            )
        time.sleep(0.001)

    def _has_had_all(self) -> bool:
        return self.heard() == self.sent_good and (self.malformed is None or self.malformed() == self.sent)


def ports() -> NetworkSettings:
    """Return free ports of loopback for one run."""
    names = ("frames", "acknowledgements", "weights", "telemetry", "fanout", "commands", "commands_fanout")
    found = {f"{name}_port": port for name, port in zip(names, free_ports(len(names)), strict=True)}
    return NetworkSettings(samples_port=free_block(4), **found)


def receivers(folder: Path, stack: ExitStack) -> list[Receiver]:
    """Return the receivers of all kinds of messages."""
    makers = (_publisher, _inbox, _commands, _telemetry, _weights, _part, _page, _edge)
    return [make(ports(), folder, stack) for make in makers]


def _sending(socket: Socket) -> Callable[[list[bytes]], None]:
    return lambda parts: socket.send_multipart(parts, flags=zmq.DONTWAIT)


def _fanning_out(network: NetworkSettings, port: int, stack: ExitStack) -> Socket:
    """Return a socket that subscribers connect to, and that drops nothing."""
    socket = stack.enter_context(Sockets(network)).bind(zmq.XPUB, network.hub_host, port)
    socket.setsockopt(zmq.XPUB_NODROP, 1)
    return socket


def _wait_for_subscription(socket: Socket) -> None:
    assert socket.poll(SUBSCRIPTION_MS), "nobody has subscribed"
    socket.recv()


def _publisher(network: NetworkSettings, folder: Path, stack: ExitStack) -> Receiver:
    publisher = stack.enter_context(Publisher(network, spool_dir=folder / "spool", memory_bytes=10**6))
    stranger = stranger_at(network, stack, network.acknowledgements_port)
    codec: Codec[ControlMessage] = Codec(ControlMessage)
    heard: list[int] = []

    def turn() -> None:
        publisher.pump(0.0)
        while publisher.scores:
            assert publisher.scores.popleft().perspective == len(heard)
            heard.append(len(heard))

    return Receiver(
        "acquisition",
        "acknowledgements",
        _sending(stranger),
        lambda number: list(codec.encode(FirstPassScore(number, 20.0, 0.5, 10.0))),
        turn,
        lambda: len(heard),
        lambda: publisher.malformed,
    )


def _inbox(network: NetworkSettings, _folder: Path, stack: ExitStack) -> Receiver:
    inbox, control, data, session = edge_by_hand(network, stack)
    codec: Codec[DataMessage] = Codec(DataMessage)
    heard: list[int] = []

    def turn() -> None:
        for _ in range(AT_ONCE):
            if (delivery := inbox.receive(0.0)) is not None:
                assert delivery.message == Frames(len(heard), 12.5, 1.25)
                heard.append(delivery.sequence)
                inbox.acknowledge([delivery.sequence])
        while control.poll(0):
            control.recv_multipart()

    return Receiver(
        "edge, rank",
        "data",
        _sending(data),
        lambda number: list(codec.encode(Frames(number, 12.5, 1.25), ARRAYS, session=f"{session}/0", sequence=number)),
        turn,
        lambda: len(heard),
        lambda: inbox.malformed,
    )


def _commands(network: NetworkSettings, _folder: Path, stack: ExitStack) -> Receiver:
    heard: list[AnyCommand] = []
    hub = stack.enter_context(closing(CommandHub(network, on_command=heard.append)))
    stranger = stranger_at(network, stack, network.commands_port)
    codec: Codec[AnyCommand] = Codec(AnyCommand)
    return Receiver(
        "hub, commands",
        "commands",
        _sending(stranger),
        lambda number: list(codec.encode(RollBackWeights(number))),
        lambda: None,
        lambda: len(heard) if all(one == RollBackWeights(at) for at, one in enumerate(heard)) else -1,
        lambda: hub.malformed,
    )


def _telemetry(network: NetworkSettings, folder: Path, stack: ExitStack) -> Receiver:
    heard: list[int] = []
    hub = TelemetryHub(network, jsonl=folder / "telemetry.jsonl", on_event=lambda _one, _arrays: heard.append(1))
    stack.enter_context(closing(hub))
    stranger = stranger_at(network, stack, network.telemetry_port, zmq.DEALER)
    codec: Codec[Telemetry] = Codec(Telemetry)
    return Receiver(
        "hub, telemetry",
        "telemetry",
        _sending(stranger),
        lambda number: list(codec.encode(telemetry(WarningRaised(f"good {number}")))),
        lambda: None,
        lambda: len(heard),
        lambda: hub.malformed,
    )


def _weights(network: NetworkSettings, _folder: Path, stack: ExitStack) -> Receiver:
    """Requests by the stranger are malformed; an edge fetches each version that is published in between."""
    server = stack.enter_context(closing(WeightsServer(network)))
    client = stack.enter_context(closing(WeightsClient(network, edge="edge")))
    stranger = stranger_at(network, stack, network.weights_port, zmq.DEALER)
    published, heard = 0, 0

    def send(parts: list[bytes]) -> None:
        nonlocal published
        if parts:
            stranger.send_multipart(parts, flags=zmq.DONTWAIT)
        elif heard < published:
            raise zmq.Again  # the newest wins: the one before would never be heard of
        else:
            published += 1
            server.publish(Weights(published, hashlib.sha256(b"w").hexdigest(), published, final=False), b"w")

    def turn() -> None:
        nonlocal heard
        if (received := client.poll(0.0)) is not None:
            heard = received[0].version

    return Receiver("trainer", "requests", send, lambda _number: [], turn, lambda: heard, lambda: server.malformed)


def _part(network: NetworkSettings, _folder: Path, stack: ExitStack) -> Receiver:
    fanout = _fanning_out(network, network.commands_fanout_port, stack)
    part = stack.enter_context(closing(CommandReceiver(network)))
    _wait_for_subscription(fanout)
    codec: Codec[AnyCommand] = Codec(AnyCommand)
    heard: list[AnyCommand] = []

    def turn() -> None:
        for _ in range(AT_ONCE):
            if (command := part.poll(0.0)) is not None:
                assert command == RollBackWeights(len(heard))
                heard.append(command)

    good: Callable[[int], list[bytes]] = lambda number: list(codec.encode(RollBackWeights(number)))  # noqa: E731
    return Receiver("every part", "commands", _sending(fanout), good, turn, lambda: len(heard), None)


def _page(network: NetworkSettings, _folder: Path, stack: ExitStack) -> Receiver:
    fanout = _fanning_out(network, network.fanout_port, stack)
    page = stack.enter_context(closing(TelemetrySubscriber(network)))
    _wait_for_subscription(fanout)
    codec: Codec[Telemetry] = Codec(Telemetry)
    heard: list[Telemetry] = []

    def turn() -> None:
        while (received := page.receive(0.0)) is not None:
            assert received.body.event == WarningRaised(f"good {len(heard)}")
            heard.append(received.body)

    return Receiver(
        "page",
        "telemetry",
        _sending(fanout),
        lambda number: list(codec.encode(telemetry(WarningRaised(f"good {number}")))),
        turn,
        lambda: len(heard),
        None,
    )


def _edge(network: NetworkSettings, _folder: Path, stack: ExitStack) -> Receiver:
    """What an edge fetches, from a trainer that answers without being asked."""
    trainer = stack.enter_context(Sockets(network)).bind(zmq.ROUTER, network.trainer_host, network.weights_port)
    trainer.router_mandatory = True
    edge = stack.enter_context(closing(WeightsClient(network, edge="edge")))
    edge.poll(0.0)
    assert trainer.poll(SUBSCRIPTION_MS), "the edge has not asked"
    identity = trainer.recv_multipart()[0]
    codec: Codec[Weights] = Codec(Weights)
    file = {"safetensors": np.zeros(5, np.uint8)}
    heard = 0

    def turn() -> None:
        nonlocal heard
        for _ in range(AT_ONCE):
            if (received := edge.poll(0.0)) is not None:
                heard += 1
                assert received[0].version == heard
        while trainer.poll(0):
            trainer.recv_multipart()

    return Receiver(
        "edge, weights",
        "weights",
        lambda parts: trainer.send_multipart([identity, *parts], flags=zmq.DONTWAIT),
        lambda number: list(codec.encode(Weights(number + 1, "0" * 64, number, final=False), file)),
        turn,
        lambda: heard,
        lambda: edge.malformed,
    )


@dataclass
class Done:
    """What has been done so far, in a file, over several runs of the program."""

    rounds: int = 0
    broken: dict[str, int] = field(default_factory=dict)
    good: dict[str, int] = field(default_factory=dict)
    events: int = 0
    requests: int = 0
    viewers: int = 0
    first_bytes: int = 0
    last_bytes: int = 0
    most_bytes: int = 0

    @property
    def messages(self) -> int:
        """All that were sent."""
        return sum(self.broken.values()) + sum(self.good.values())

    def table(self) -> str:
        """Return what is printed at the end."""
        rows = [f"{'receiver':<20}{'broken':>12}{'good':>10}", *(self._row(name) for name in self.broken)]
        mib = [one >> 20 for one in (self.first_bytes, self.last_bytes, self.most_bytes)]
        rows += [
            f"{'all':<20}{sum(self.broken.values()):>12}{sum(self.good.values()):>10}",
            f"{self.events} events, {self.requests} requests, {self.viewers} viewers; every good message was taken in",
            "memory: {} MiB after the first rounds, {} MiB at the end, {} MiB at most".format(*mib),
        ]
        return "\n".join(rows)

    def _row(self, name: str) -> str:
        return f"{name:<20}{self.broken[name]:>12}{self.good[name]:>10}"


def _odd_viewers(folder: Path, seed: int, stack: ExitStack) -> OddViewers:
    """Serve the page of a run for odd viewers to come to."""
    run = RunFolder(folder / "served")
    run.path.mkdir()
    run.telemetry.write_bytes(msgspec.json.encode(telemetry(WarningRaised("dark frames"))) + b"\n")
    stop, addresses = threading.Event(), Queue[str]()
    settings = DashboardSettings(port=0)
    served = threading.Thread(
        target=partial(serve_earlier_run, settings, folder=run, stop=stop, on_served=addresses.put), daemon=True
    )
    served.start()
    stack.callback(served.join, TIME_LIMIT_S)
    stack.callback(stop.set)
    url = urlsplit(addresses.get(timeout=TIME_LIMIT_S))
    return OddViewers(str(url.hostname), int(url.port or 0), seed)


class Campaign:
    """Feeds all receivers, round after round, and watches the memory of this process.

    Args:
        folder: what receivers write.
        seed: the same one sends the same.
        done: what earlier ones did; what this one does is added.
    """

    def __init__(self, folder: Path, seed: int, stack: ExitStack, done: Done) -> None:
        self._seed, self._receivers, self._done = seed, receivers(folder, stack), done
        self._rounds = self._settled_bytes = 0
        settings = DashboardSettings()
        self._state = DashboardState("run", settings)
        runs = Runs(self._state, RunFolder(folder / "run"), settings)
        client = TestClient(create_app(runs, settings), base_url="http://127.0.0.1:8421")
        self._requests = OddRequests(client, seed + 1000 * done.rounds)
        self._cursor = StateCursor()
        self._viewers = stack.enter_context(closing(_odd_viewers(folder, seed + 1000 * done.rounds, stack)))

    def round(self, *, messages: int, events: int, requests: int, viewers: int) -> None:
        """Send messages to all receivers, and wait until they have had them.

        Raises:
            NotHeld: one has not, an answer is none that is described, or memory grew.
        """
        chance, done = random.Random(f"{self._seed}.{self._done.rounds}"), self._done
        for receiver in self._receivers:
            before, before_good = receiver.sent, receiver.sent_good
            receiver.feed(messages // len(self._receivers), chance)
            name = receiver.name
            done.broken[name] = done.broken.get(name, 0) + receiver.sent - before
            done.good[name] = done.good.get(name, 0) + receiver.sent_good - before_good
        stranger = Stranger(chance.randrange(2**32))
        for at in range(events):
            self._state.apply(telemetry(stranger.event()), stranger.arrays())
            if at % 100 == 0:
                update, self._cursor = self._state.update(self._cursor, now_s=time.time())
                json.loads(update.model_dump_json())
        if faults := list(self._requests.faults(requests)):
            raise NotHeld("; ".join(faults))
        self._viewers.come(viewers)
        if viewers and (fault := self._viewers.fault()) is not None:
            raise NotHeld(fault)
        done.rounds, done.events, done.requests = done.rounds + 1, done.events + events, done.requests + requests
        done.viewers += viewers
        self._watch_memory()

    def _watch_memory(self) -> None:
        taken = psutil.Process().memory_info().rss
        self._rounds += 1
        if self._rounds <= SETTLED_ROUNDS:
            self._settled_bytes = taken
        self._done.first_bytes = self._done.first_bytes or taken
        self._done.last_bytes, self._done.most_bytes = taken, max(self._done.most_bytes, taken)
        if taken > self._settled_bytes + GROWTH_BYTES:
            raise NotHeld(f"memory grew from {self._settled_bytes >> 20} to {taken >> 20} MiB")


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000, help="messages in all, those of earlier runs included")
    parser.add_argument("--events", type=float, default=0.1, help="for each message")
    parser.add_argument("--requests", type=float, default=0.1, help="for each message")
    parser.add_argument("--viewers", type=float, default=0.02, help="for each message")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, help="folder of what was done")
    options = parser.parse_args()
    logging.disable()
    work: Path = options.work or Path(tempfile.gettempdir()) / f"mutated-sockets-{options.seed}"
    work.mkdir(parents=True, exist_ok=True)
    done_file = work / "done.json"
    done = Done(**json.loads(done_file.read_text())) if done_file.exists() else Done()
    began_s, began_with = time.monotonic(), done.messages
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        campaign = Campaign(Path(scratch), options.seed, stack, done)
        while done.messages < options.count:
            try:
                campaign.round(
                    messages=ROUND,
                    events=round(ROUND * options.events),
                    requests=round(ROUND * options.requests),
                    viewers=round(ROUND * options.viewers),
                )
            except (NotHeld, AssertionError) as error:
                print(f"seed {options.seed}, round {done.rounds}: {error}", flush=True)
                return 1
            write_durably(done_file, json.dumps(asdict(done)).encode())
            rate = (done.messages - began_with) / (time.monotonic() - began_s)
            left_min = max(0, options.count - done.messages) / rate / 60
            print(
                f"{done.messages} of {options.count} messages, {rate:.0f} a second, {left_min:.0f} min left, "
                f"{done.last_bytes >> 20} MiB",
                flush=True,
            )
    print(done.table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
