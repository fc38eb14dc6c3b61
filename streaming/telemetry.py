"""Telemetry: every part sends events to one hub, which writes them to the run's folder and fans them out to viewers."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from io import SEEK_END, FileIO
from pathlib import Path
from typing import Any

import msgspec
import numpy.typing as npt
import zmq

from ptychoflow.streaming.access import FANOUT, TELEMETRY, Role
from ptychoflow.streaming.codec import Arrays, Codec, Decoded, ReceivingCodec
from ptychoflow.streaming.connection import Connection, has_left
from ptychoflow.streaming.events import (
    AcquisitionCounts,
    AnyEvent,
    EdgeCounts,
    Part,
    PartStatus,
    RankCounts,
    Telemetry,
)
from ptychoflow.streaming.messages import MAX_RANKS, Taken
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.streaming.sockets import Sockets, receive_now
from ptychoflow.streaming.speakers import Speakers
from ptychoflow.streaming.telemetry_log import log_identity
from ptychoflow.streaming.utf8 import in_utf8

log = logging.getLogger(__name__)

POLL_MS = 100
SENDER_QUEUE = 10_000
"""Events that wait in a sender while the hub is away; beyond that the newest are dropped and counted."""

ARRAYS_AWAY_BYTES = 1 << 26
"""Of their arrays; images come whole now and then, so that what was dropped is made up for."""

LAST_WORDS = (AcquisitionCounts, EdgeCounts, RankCounts, PartStatus)
"""What a summary cannot do without: a part that ends stays until the hub has the newest of each."""
PATIENCE_S = 60.0
"""How long it stays, while the hub may come back."""
SOON_S = 2.0
"""And for a hub that was never there, or has left."""
DRAINED_S = 2.0
"""A hub that is closed takes in for so long at most what still comes."""
ASK_AGAIN_S = 1.0
ANSWER_POLL_MS = 50

SPEAKERS = {
    Part.ACQUISITION: (Role.ACQUISITION,),
    Part.TRAINER: (Role.TRAINER,),
    Part.EDGE: (Role.EDGE,),
    Part.DASHBOARD: (Role.DASHBOARD, Role.HUB),
    Part.OUTPUTS: (Role.OUTPUTS, Role.DASHBOARD, Role.HUB),
    Part.WORKFLOW: (Role.HUB,),
}
"""Whose keys a part may have; who may command a run may also watch it."""

OnEvent = Callable[[Telemetry, Arrays], None]


class TelemetrySender:
    """Sends events of one part. Thread-safe; sending never blocks.

    Of what is sent while a connection breaks off, some is lost. Counts and states that came last are sent again at the
    end, until the hub says that it has written them.

    Args:
        network: hosts, ports and keys of the run; connects to `hub_host:telemetry_port`.
        part: who speaks.
        rank: which process of the trainer.
    """

    def __init__(self, network: NetworkSettings, *, part: Part, rank: int = 0) -> None:
        self.dropped = 0
        self._part, self._rank = part, rank
        self._codec: Codec[Telemetry] = Codec(Telemetry)
        self._answers: ReceivingCodec[Taken] = ReceivingCodec(Taken, "answers of the hub")
        self._last: dict[type[AnyEvent], Telemetry] = {}
        self._lock = threading.Lock()
        self._closing = False
        self._host, self._port = network.hub_host, network.telemetry_port
        self._sockets = Sockets(network.model_copy(update={"high_water_mark": SENDER_QUEUE}))
        self._connection = Connection(
            self._sockets, zmq.DEALER, host=self._host, port=self._port, access=TELEMETRY, roles=SPEAKERS[part]
        )
        self._waiting_bytes = 0
        """Of arrays sent since the hub is away."""

    def send(self, event: AnyEvent, arrays: Mapping[str, npt.NDArray[Any]] | None = None) -> None:
        """Send an event; never blocks. When the queue is full, or the sender closes, it is dropped and counted.

        So it is while the hub is away, if arrays of `ARRAYS_AWAY_BYTES` wait already.

        Args:
            event: what happened; its counters are cumulative.
            arrays: those that its docstring names.
        """
        with self._lock:
            if self._closing:
                self.dropped += 1
                return
            self._look()
            telemetry = Telemetry(time.time(), self._part, self._rank, event)
            try:
                try:
                    parts = self._codec.encode(telemetry, arrays)
                except UnicodeEncodeError:  # it quotes a file name that is no UTF-8, say
                    telemetry = in_utf8(telemetry)
                    parts = self._codec.encode(telemetry, arrays)
            except OverflowError as error:
                self.dropped += 1
                log.warning("%s cannot be sent: %s", type(event).__name__, error)
                return
            if isinstance(event, LAST_WORDS):
                self._last[type(event)] = telemetry
            if not self._has_room(arrays or {}):
                self._drop()
                return
            try:
                self._connection.socket.send_multipart(parts, flags=zmq.DONTWAIT, copy=False)
            except zmq.Again:
                self._drop()

    def close(self) -> None:
        """Stay until the hub has the last counts and states, then close the socket.

        Blocks for two seconds at most if the hub was never there or has left, and for a minute while it may come back;
        the log then says what it does not have.
        """
        with self._lock:
            self._closing = True
        # from here on the socket is this thread's alone
        if not self._last:
            self._sockets.close(linger_s=SOON_S)
            return
        missing = self._tell_last_words()
        self._sockets.close(linger_s=0.0)
        if missing:
            what = ", ".join(type(one.event).__name__ for one in missing)
            log.warning("the hub of telemetry has not confirmed the last %s: the summary may lack what it tells", what)

    def _has_room(self, arrays: Mapping[str, npt.NDArray[Any]]) -> bool:
        if self._connection.stands:
            self._waiting_bytes = 0
            return True
        size = sum(array.nbytes for array in arrays.values())
        if size and self._waiting_bytes + size > ARRAYS_AWAY_BYTES:
            return False
        self._waiting_bytes += size
        return True

    def _drop(self) -> None:
        if self.dropped == 0:
            log.warning("nobody collects telemetry: as much waits as there is room for, more is dropped")
        self.dropped += 1

    def _look(self) -> None:
        """Take in what has become of the connection."""
        for _change in self._connection.read_changes():
            pass

    def _tell_last_words(self) -> list[Telemetry]:
        """Send the last words again and again until they are confirmed; return those that were not."""
        session, socket = uuid.uuid4().hex, self._connection.socket
        asked = dict(enumerate(self._last.values()))
        began_s = heard_s = time.monotonic()
        ask_at_s = began_s
        while asked and (now_s := time.monotonic()) < began_s + PATIENCE_S:
            self._look()
            if self._connection.stands:
                heard_s = now_s
            elif now_s > heard_s + SOON_S:
                if not self._connection.has_stood or has_left(self._host, self._port):
                    break
                heard_s = time.monotonic()
            if now_s >= ask_at_s:
                ask_at_s = now_s + ASK_AGAIN_S
                with contextlib.suppress(zmq.Again):
                    for number, telemetry in asked.items():
                        parts = self._codec.encode(telemetry, session=session, sequence=number)
                        socket.send_multipart(parts, flags=zmq.DONTWAIT)
            if socket.poll(ANSWER_POLL_MS) and (answer := receive_now(socket)):
                decoded = self._answers.read(answer)
                if decoded is not None and decoded.session == session:
                    asked.pop(decoded.sequence, None)
        return list(asked.values())


class TelemetryHub:
    """Collects events in a thread of its own, appends them to a file, and fans them out.

    An event that bears a session is answered once it is in the file; the same one again is answered alone.

    A malformed event is counted and skipped, as is one of a part that its sender's key is not for; the log tells one.

    Args:
        network: hosts, ports and keys of the run; binds `hub_host` at `telemetry_port` and `fanout_port`.
        jsonl: file that gets one line per event, without arrays.
        on_event: called in the hub's thread for every event.

    Raises:
        UserError: a port is in use.
        OSError: the file cannot be opened.
    """

    def __init__(self, network: NetworkSettings, *, jsonl: Path, on_event: OnEvent | None = None) -> None:
        self._jsonl = jsonl
        self._file = _open_to_append(jsonl)
        self._position, self._identity = self._file.tell(), log_identity(jsonl)
        self._unwritten = 0
        self._torn = b""
        self._on_event = on_event
        self._codec: ReceivingCodec[Telemetry] = ReceivingCodec(Telemetry, "telemetry", network.max_message_bytes)
        self._speakers = Speakers(network, TELEMETRY)
        self._answers: Codec[Taken] = Codec(Taken)
        self._newest: dict[tuple[Part, int, type[AnyEvent]], Telemetry] = {}
        """Last words as far as they have come."""
        self._sockets = Sockets(network.model_copy(update={"high_water_mark": SENDER_QUEUE}))
        self._socket = self._sockets.bind(zmq.ROUTER, network.hub_host, network.telemetry_port, TELEMETRY)
        self._fanout = self._sockets.bind(zmq.PUB, network.hub_host, network.fanout_port, FANOUT)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry-hub", daemon=True)
        self._thread.start()

    @property
    def malformed(self) -> int:
        """Events that could not be read, or come from another part than they say."""
        return self._codec.malformed

    def close(self) -> None:
        """Take in what has arrived, then stop; blocks for seconds, though parts may go on sending."""
        self._stop.set()
        self._thread.join()
        self._sockets.close(linger_s=0.5)
        self._file.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            if self._socket.poll(POLL_MS):
                self._receive_next()
        deadline_s = time.monotonic() + DRAINED_S
        while time.monotonic() < deadline_s and self._socket.poll(POLL_MS):
            self._receive_next()

    def _receive_next(self) -> None:
        if parts := receive_now(self._socket, copy=False):
            self._receive(*parts)

    def _receive(self, sender: zmq.Frame, *parts: zmq.Frame) -> None:
        decoded = self._codec.read(parts)
        if decoded is None:
            return
        part = decoded.body.part
        if not self._speakers.include(parts[0], SPEAKERS[part]):
            self._codec.drop(f"{type(decoded.body.event).__name__} for part {part} with the key of another role")
            return
        if self._is_news(decoded.body) or not decoded.session:
            self._take(decoded)
        if decoded.session:
            with contextlib.suppress(OSError):
                os.fsync(self._file.fileno())
            answer = self._answers.encode(Taken(), session=decoded.session, sequence=decoded.sequence)
            # it asks again if this is lost
            with contextlib.suppress(zmq.Again):
                self._socket.send_multipart([sender.bytes, *answer], flags=zmq.DONTWAIT)

    def _is_news(self, telemetry: Telemetry) -> bool:
        """Note last words; return whether they are others than those before."""
        if not (isinstance(telemetry.event, LAST_WORDS) and 0 <= telemetry.rank < MAX_RANKS):
            return True
        key = telemetry.part, telemetry.rank, type(telemetry.event)
        known, self._newest[key] = self._newest.get(key), telemetry
        return known != telemetry

    def _take(self, decoded: Decoded[Telemetry]) -> None:
        self._append(decoded.body)
        # who follows the run is told which file holds the event, and where in it its line ends
        told = self._codec.encode(decoded.body, decoded.arrays, session=self._identity, sequence=self._position)
        self._fanout.send_multipart(told, copy=False)
        if self._on_event is not None:
            self._on_event(decoded.body, decoded.arrays)

    def _append(self, telemetry: Telemetry) -> None:
        """Write one line; a full disk must not keep the run's summary and its viewers from the event."""
        try:
            line = self._torn + msgspec.json.encode(telemetry) + b"\n"
            # a disk that fills up takes the beginning of a line
            self._torn = b"\n" if self._file.write(line) < len(line) else b""
        except OSError as error:
            self._unwritten += 1
            if self._unwritten == 1:
                log.warning("cannot write %s (%s): it will lack events", self._jsonl, error.strerror)
        self._position = max(self._position + 1, self._file.tell())
        self._identity = self._identity or log_identity(self._jsonl)


def _open_to_append(path: Path) -> FileIO:
    """Open a file of lines; the last one may have been cut short when the process that wrote it was killed."""
    file = path.open("a+b", buffering=0)
    if file.seek(0, SEEK_END) > 0:
        file.seek(-1, SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")
    return file


class TelemetrySubscriber:
    """Receives what the hub fans out, from now on. Use it from one thread only.

    Args:
        network: hosts, ports and keys of the run; connects to `hub_host:fanout_port`.
    """

    def __init__(self, network: NetworkSettings) -> None:
        self._codec: ReceivingCodec[Telemetry] = ReceivingCodec(Telemetry, "telemetry", network.max_message_bytes)
        self._sockets = Sockets(network.model_copy(update={"high_water_mark": SENDER_QUEUE}))
        self._socket = self._sockets.connect(zmq.SUB, network.hub_host, network.fanout_port, FANOUT)
        self._socket.subscribe(b"")

    def receive(self, timeout_s: float) -> Decoded[Telemetry] | None:
        """Return the next event, or None after `timeout_s` seconds without one; a malformed one is skipped.

        Its `sequence` is where its line in `telemetry.jsonl` ends, in bytes; its `session` is that file's identity.
        """
        deadline_s = time.monotonic() + timeout_s
        while self._socket.poll(max(0, int(1000 * (deadline_s - time.monotonic())))):
            parts = receive_now(self._socket, copy=False)
            decoded = self._codec.read(parts) if parts else None
            if decoded is not None:
                return decoded
        return None

    def close(self) -> None:
        """Close the socket."""
        self._sockets.close()
