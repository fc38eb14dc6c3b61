"""What is done to a run: processes are killed or stopped, its disk is full, its link down, its ports get nonsense."""

from __future__ import annotations

import errno
import random
import signal
import socket
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import psutil
import zmq
from apart import set_loopback
from broken_messages import SAID, broken
from run import Moment, Run
from victims import Victim, victims

from ptychoflow.workflow.launching.processes import is_alive

Address = tuple[str, int] | str
"""Host and port, or a file."""
MESSAGES = 60
"""To each port in each way, as far as the port takes them."""
DYING_S = 10.0
"""What a killed process may need on a busy host."""
SPEAKING_S = 0.5
"""To each port in each way: one that takes nothing from such a socket lets it connect again and again."""


class Kind(StrEnum):
    """What is done."""

    KILL = "kill"
    STOP = "stop"
    INTERRUPT = "interrupt"
    FULL_DISK = "full disk"
    LINK_DOWN = "link down"
    BROKEN_MESSAGES = "broken messages"


APART = frozenset((Kind.FULL_DISK, Kind.LINK_DOWN))
"""What can only be done in a place of one's own."""
KINDS = (*[Kind.KILL] * 5, *[Kind.STOP] * 2, *Kind)
"""How often each is chosen."""
SEVERAL: tuple[frozenset[Victim], ...] = (
    frozenset((Victim.LAUNCHER, Victim.WATCHDOG)),
    frozenset((Victim.TRAINER, Victim.EDGE)),
    frozenset((Victim.TRAINER, Victim.ACQUISITION)),
    frozenset((Victim.EDGE, Victim.ACQUISITION)),
)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Strike:
    """One blow at a run."""

    kind: Kind
    victims: frozenset[Victim]
    """Empty where it is aimed at no process."""
    moment: Moment
    delay_s: float
    """After the moment."""
    lasts_s: float
    """Of what passes."""
    seed: int

    @property
    def target(self) -> str:
        """Who or what is struck, in words."""
        return " + ".join(sorted(self.victims)) or "the run"

    def __str__(self) -> str:
        lasts = f" for {self.lasts_s:.1f} s" if self.kind not in (Kind.KILL, Kind.INTERRUPT) else ""
        return f"{self.kind} {self.target}{lasts}, {self.delay_s:.3f} s after {self.moment}"


def choose_strike(chance: random.Random, *, apart: bool) -> Strike:
    """Return a strike at any moment of a run's life."""
    kind = chance.choice([one for one in KINDS if apart or one not in APART])
    chosen: frozenset[Victim] = frozenset()
    if kind in (Kind.KILL, Kind.STOP):
        several = chance.random() < 0.25
        chosen = chance.choice(SEVERAL) if several else frozenset((chance.choice(list(Victim)),))
    elif kind is Kind.INTERRUPT:
        chosen = frozenset((Victim.LAUNCHER,))
    return Strike(
        kind,
        chosen,
        moment=chance.choice(list(Moment)),
        delay_s=2.5 * chance.random() ** 2,
        lasts_s=10.0 * chance.random() ** 2,
        seed=chance.randrange(1 << 32),
    )


@dataclass
class Blow:
    """What became of a strike."""

    strike: Strike
    landed: bool = False
    struck: set[Victim] = field(default_factory=set)


def deliver(strike: Strike, run: Run) -> Blow:
    """Strike now; returns when what passes has passed."""
    blow = Blow(strike)
    match strike.kind:
        case Kind.KILL:
            struck = _send(strike, run, signal.SIGKILL, blow)
            deadline_s = time.monotonic() + DYING_S
            while any(map(is_alive, struck)) and time.monotonic() < deadline_s:
                time.sleep(0.02)
        case Kind.STOP:
            struck = _send(strike, run, signal.SIGSTOP, blow)
            time.sleep(strike.lasts_s)
            for process in struck:
                _signal(process, signal.SIGCONT)
        case Kind.INTERRUPT:
            _send(strike, run, random.Random(strike.seed).choice(SIGNALS), blow)
        case Kind.FULL_DISK:
            with _full_disk(run.folder.parent):
                time.sleep(strike.lasts_s)
            blow.landed = True
        case Kind.LINK_DOWN:
            set_loopback("down")
            time.sleep(strike.lasts_s)
            set_loopback("up")
            blow.landed = True
        case Kind.BROKEN_MESSAGES:
            blow.landed = _speak_nonsense(run, random.Random(strike.seed))
    return blow


def _send(strike: Strike, run: Run, number: signal.Signals, blow: Blow) -> list[psutil.Process]:
    """Send a signal to all victims that are there, all at once."""
    found = [(role, one) for role, one in victims(run.mark) if role in strike.victims or _everybody(strike)]
    chance = random.Random(strike.seed)
    ranks = [one for role, one in found if role is Victim.RANK]
    spared = set(ranks) - {chance.choice(ranks)} if ranks and not _everybody(strike) else set()
    struck = [(role, one) for role, one in found if role is not Victim.RANK or one not in spared]
    for role, process in struck:
        if _signal(process, number):
            blow.struck.add(role)
    blow.landed = bool(blow.struck)
    return [process for _, process in struck]


def _everybody(strike: Strike) -> bool:
    return Victim.EVERYBODY in strike.victims


def _signal(process: psutil.Process, number: signal.Signals) -> bool:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return False
    return True


@contextmanager
def _full_disk(folder: Path) -> Iterator[None]:
    """Leave no room on the disk of a folder within the context."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
    try:
        yield
    finally:
        filler.unlink()


def _speak_nonsense(run: Run, chance: random.Random) -> bool:
    """Send what is no message to all places where a run listens; return whether there are any."""
    try:
        config = tomllib.loads((run.folder / "config.toml").read_text())
    except (OSError, ValueError):
        return False
    addresses = [*(("127.0.0.1", port) for port in _ports(config)), *_socket_files(config["network"])]
    for address in addresses:
        _speak_raw(address, chance)
    context = zmq.Context()
    try:
        for address in addresses:
            for kind in (zmq.PUSH, zmq.DEALER, zmq.PUB, zmq.XSUB):
                _speak_zeromq(context.socket(kind), address, chance)
    finally:
        context.destroy(linger=200)
    return bool(addresses)


def _ports(config: dict[str, Any]) -> list[int]:
    network = config["network"]
    ports: set[int] = set()
    if "sockets_dir" not in network:
        ports |= {port for name, port in network.items() if name.endswith("_port")}
        ports |= {network["samples_port"] + rank for rank in range(config["trainer"]["ranks"])}
    if config["dashboard"]["enabled"]:
        ports.add(config["dashboard"]["port"])
    listening = {
        one.laddr.port for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN and one.laddr
    }
    return sorted(ports & listening)


def _socket_files(network: dict[str, Any]) -> list[str]:
    """Return the files over which the parts talk, if they do."""
    folder = network.get("sockets_dir")
    return [] if folder is None else sorted(str(path) for path in Path(folder).glob("*") if path.is_socket())


def _speak_raw(address: Address, chance: random.Random) -> None:
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)
    for raw in (chance.randbytes(4000), greeting + chance.randbytes(4000), b"GET /" + chance.randbytes(4000), b""):
        try:
            with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as connection:
                connection.settimeout(1.0)
                connection.connect(address)
                connection.sendall(raw)
        except OSError:
            continue


def _speak_zeromq(speaker: zmq.Socket[bytes], address: Address, chance: random.Random) -> None:
    """Send broken messages, as far as the port takes any from such a socket."""
    speaker.linger = 200  # what a port has not taken by then it never does
    speaker.connect(f"ipc://{address}" if isinstance(address, str) else "tcp://{}:{}".format(*address))
    deadline_s = time.monotonic() + SPEAKING_S
    for _ in range(MESSAGES):
        if not speaker.poll(200, zmq.POLLOUT) or time.monotonic() > deadline_s:
            return
        try:
            speaker.send_multipart(broken(chance.choice(list(SAID)), chance), flags=zmq.DONTWAIT)
        except zmq.Again:
            return
