"""Sends messages that nobody can read, and events that nobody sends, to real receivers; good ones come in between.

    PYTHONPATH=tests:tests/dashboard python tests/chaos/mutated_sockets.py --count 1000000 --seed 1

Of every hundred messages one is good: every receiver must be alive, and have taken in each good one, at the end, and
memory must not grow. `--events` go into the state of a page and a summary, `--requests` to the page's interface. A
campaign that was broken off goes on with the round in which it was. A short one is a test.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import random
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import psutil
import zmq
from broken_messages import ARRAYS, broken
from fastapi.testclient import TestClient
from odd_requests import OddRequests
from speaking import telemetry
from strangers import edge_by_hand, stranger_at
from support import free_block, free_ports, wait_until
from test_hostile_images import Stranger

from ptychoflow.dashboard.app import create_app
from ptychoflow.dashboard.runs import Runs
from ptychoflow.dashboard.settings import DashboardSettings
from ptychoflow.dashboard.state import DashboardState, StateCursor
from ptychoflow.streaming.codec import Codec
from ptychoflow.streaming.commands import AnyCommand, CommandHub, CommandReceiver, RollBackWeights
from ptychoflow.streaming.events import Telemetry, WarningRaised
from ptychoflow.streaming.messages import ControlMessage, DataMessage, FirstPassScore, Frames, Weights
from ptychoflow.streaming.publisher import Publisher
from ptychoflow.streaming.run_folder import RunFolder
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.streaming.telemetry import TelemetryHub
from ptychoflow.streaming.weights_channel import WeightsClient, WeightsServer

MALFORMED_IN_A_ROW = 99
ROUND = 5_000
"""Messages after which receivers are asked whether they have had all of them."""
TIME_LIMIT_S = 300.0
GROWTH_BYTES = 64 << 20
"""What the process may take beyond what it has after the first rounds."""
SETTLED_ROUNDS = 2


@dataclass
class Receiver:
    """A real receiver that a stranger can reach."""

    kind: str
    send: Callable[[list[bytes]], None]
    good: Callable[[int], list[bytes]]
    """A good message with a number."""
    turn: Callable[[], object]
    """Let it work, if it has no thread of its own."""
    heard: Callable[[], int]
    """How many good ones it has taken in."""
    malformed: Callable[[], int]
    sent: int = 0
    sent_good: int = 0

    def feed(self, count: int, chance: random.Random) -> None:
        """Send messages."""
        for number in range(count):
            good = number % (MALFORMED_IN_A_ROW + 1) == MALFORMED_IN_A_ROW
            self.send(self.good(self.sent_good) if good else broken(self.kind, chance))
            self.sent_good, self.sent = self.sent_good + good, self.sent + (not good)
            if number % 50 == 0:
                self.turn()

    def has_had_all(self) -> bool:
        """Whether it has taken in all good ones, and counted the others."""
        self.turn()
        return self.heard() == self.sent_good and self.malformed() == self.sent


def ports() -> NetworkSettings:
    """Return free ports of loopback for one run."""
    names = ("frames", "acknowledgements", "weights", "telemetry", "fanout", "commands", "commands_fanout")
    found = {f"{name}_port": port for name, port in zip(names, free_ports(len(names)), strict=True)}
    return NetworkSettings(samples_port=free_block(4), **found)


def receivers(folder: Path, stack: ExitStack) -> list[Receiver]:
    """Return the receivers of all kinds of messages."""
    return [make(ports(), folder, stack) for make in (_publisher, _inbox, _commands, _telemetry, _weights)]


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
        "acknowledgements",
        stranger.send_multipart,
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
        while (delivery := inbox.receive(0.0)) is not None:
            assert delivery.message == Frames(len(heard), 12.5, 1.25)
            heard.append(delivery.sequence)
            inbox.acknowledge([delivery.sequence])
        while control.poll(0):
            control.recv_multipart()

    return Receiver(
        "data",
        data.send_multipart,
        lambda number: list(codec.encode(Frames(number, 12.5, 1.25), ARRAYS, session=f"{session}/0", sequence=number)),
        turn,
        lambda: len(heard),
        lambda: inbox.malformed,
    )


def _commands(network: NetworkSettings, _folder: Path, stack: ExitStack) -> Receiver:
    heard: list[AnyCommand] = []
    hub = stack.enter_context(closing(CommandHub(network, on_command=heard.append)))
    part = stack.enter_context(closing(CommandReceiver(network)))
    stranger = stranger_at(network, stack, network.commands_port)
    codec: Codec[AnyCommand] = Codec(AnyCommand)

    def turn() -> None:
        while part.poll(0.0) is not None:
            pass

    return Receiver(
        "commands",
        stranger.send_multipart,
        lambda number: list(codec.encode(RollBackWeights(number))),
        turn,
        lambda: len(heard) if all(one == RollBackWeights(at) for at, one in enumerate(heard)) else -1,
        lambda: hub.malformed,
    )


def _telemetry(network: NetworkSettings, folder: Path, stack: ExitStack) -> Receiver:
    heard: list[int] = []
    hub = TelemetryHub(network, jsonl=folder / "telemetry.jsonl", on_event=lambda _one, _arrays: heard.append(1))
    stack.enter_context(closing(hub))
    stranger = stranger_at(network, stack, network.telemetry_port)
    codec: Codec[Telemetry] = Codec(Telemetry)
    return Receiver(
        "telemetry",
        stranger.send_multipart,
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
            stranger.send_multipart(parts)
            return
        published += 1
        server.publish(Weights(published, hashlib.sha256(b"w").hexdigest(), published, final=False), b"w")
        wait_until(lambda: take() == published, timeout_s=TIME_LIMIT_S)

    def take() -> int:
        nonlocal heard
        if (received := client.poll(0.05)) is not None:
            heard = received[0].version
        return heard

    return Receiver("requests", send, lambda _number: [], lambda: None, lambda: heard, lambda: server.malformed)


class Campaign:
    """Feeds all receivers, round after round, and watches the memory of this process.

    Args:
        folder: what receivers write.
        seed: the same one sends the same.
    """

    def __init__(self, folder: Path, seed: int, stack: ExitStack) -> None:
        self._seed, self._receivers = seed, receivers(folder, stack)
        self._settled_bytes = 0
        self.most_bytes = 0
        settings = DashboardSettings()
        self._state = DashboardState("run", settings)
        runs = Runs(self._state, RunFolder(folder / "run"), settings)
        client = TestClient(create_app(runs, settings), base_url="http://127.0.0.1:8421")
        self._requests = OddRequests(client, seed)
        self._cursor = StateCursor()

    def round(self, number: int, *, messages: int, events: int, requests: int) -> None:
        """Send messages to all receivers, and wait until they have had them; raise AssertionError if one has not."""
        chance = random.Random(f"{self._seed}.{number}")
        for receiver in self._receivers:
            receiver.feed(messages // len(self._receivers), chance)
            wait_until(receiver.has_had_all, timeout_s=TIME_LIMIT_S)
        stranger = Stranger(chance.randrange(2**32))
        for at in range(events):
            self._state.apply(telemetry(stranger.event()), stranger.arrays())
            if at % 100 == 0:
                update, self._cursor = self._state.update(self._cursor, now_s=time.time())
                json.loads(update.model_dump_json())
        assert list(self._requests.faults(requests)) == []
        self._watch_memory(number)

    def _watch_memory(self, number: int) -> None:
        taken = psutil.Process().memory_info().rss
        if number < SETTLED_ROUNDS:
            self._settled_bytes = taken
        self.most_bytes = max(self.most_bytes, taken)
        assert taken < self._settled_bytes + GROWTH_BYTES, f"memory grew from {self._settled_bytes} to {taken} bytes"


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000, help="messages in all, those of earlier runs included")
    parser.add_argument("--events", type=float, default=0.1, help="for each message")
    parser.add_argument("--requests", type=float, default=0.1, help="for each message")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, help="folder of what was done")
    options = parser.parse_args()
    logging.disable()
    work: Path = options.work or Path(tempfile.gettempdir()) / f"mutated-sockets-{options.seed}"
    work.mkdir(parents=True, exist_ok=True)
    done_file = work / "done.json"
    done = json.loads(done_file.read_text()) if done_file.exists() else 0
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        campaign = Campaign(Path(scratch), options.seed, stack)
        for number in range(done, -(-options.count // ROUND)):
            events, requests = int(ROUND * options.events), int(ROUND * options.requests)
            campaign.round(number, messages=ROUND, events=events, requests=requests)
            done_file.write_text(json.dumps(number + 1))
            seconds = time.monotonic() - began_s
            print(f"{(number + 1) * ROUND} messages, {campaign.most_bytes >> 20} MiB, {seconds:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
