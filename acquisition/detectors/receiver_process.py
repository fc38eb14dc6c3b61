"""The receiver's own process: drains every source into the arrivals files, and does nothing else.

Each source has a thread that receives, and one more writes. Neither a pause of the run nor the work of the acquisition
nor a slow disk is felt at a socket, as long as memory lasts. Arguments: the receiver's settings as JSON. The process
says how it stands on standard output, a JSON line each time, and ends when its standard input is closed, so also when
its parent is killed.
"""

from __future__ import annotations

import fcntl
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import msgspec

from ptychoflow.acquisition.child_process import begin_child
from ptychoflow.acquisition.detectors.arrivals_file import DROPPED, LISTENING, STOPPED, ArrivalsReader, ArrivalsWriter
from ptychoflow.acquisition.detectors.interface import POLL_S, Connection, Part
from ptychoflow.acquisition.detectors.receiver_messages import ReceiverFailed, ReceiverJob, ReceiverStatus
from ptychoflow.acquisition.detectors.sources import make_connection
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.freed_memory import keep_freed_memory

log = logging.getLogger(__name__)

STATUS_PERIOD_S = 0.5
FRAMES = 0
"""The source that begins series."""


class ReceivedQueue:
    """What was received and not yet written, bounded.

    Args:
        most_bytes: what comes while so much waits is dropped and counted.
    """

    def __init__(self, most_bytes: int) -> None:
        self._waiting: queue.SimpleQueue[tuple[int, float, Sequence[Part], int]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._most_bytes, self._bytes, self._dropped = most_bytes, 0, 0

    def put(self, source: int, parts: Sequence[Part]) -> None:
        """Take in one message. Does not block."""
        size = sum(len(part) for part in parts)
        with self._lock:
            if self._bytes + size > self._most_bytes and self._bytes:
                self._dropped += 1
                return
            self._bytes += size
        self._waiting.put((source, time.time(), parts, size))

    def get(self, timeout_s: float) -> tuple[int, float, Sequence[Part]] | None:
        """Return the next message, or None if none came in time."""
        try:
            source, received_at_s, parts, size = self._waiting.get(timeout=timeout_s)
        except queue.Empty:
            return None
        with self._lock:
            self._bytes -= size
        return source, received_at_s, parts

    def count_dropped(self, messages: int) -> None:
        """Count messages that could not be kept."""
        with self._lock:
            self._dropped += messages

    def take_dropped(self) -> int:
        """Return how many messages were dropped since the last call."""
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        return dropped


def main() -> None:
    """Receive until standard input is closed."""
    answers = begin_child()
    keep_freed_memory()
    job = msgspec.json.decode(sys.argv[1], type=ReceiverJob)
    stop = threading.Event()
    threading.Thread(target=_stop_at_end_of_input, args=(stop,), daemon=True).start()
    received, failures = ReceivedQueue(job.queue_bytes), queue.SimpleQueue[str]()
    try:
        sources = job.source_settings()
        connections = [make_connection(settings) for settings in sources]
        writer = ArrivalsWriter(Path(job.folder), [settings.kind for settings in sources])
        claim = os.open(job.folder, os.O_RDONLY)
        fcntl.flock(claim, fcntl.LOCK_EX)  # an earlier receiver may still be writing what it has
        _recall(connections, Path(job.folder))
        writer.append(LISTENING, time.time(), ())
    except (UserError, OSError) as error:
        _say(answers, ReceiverFailed(str(error)))
        return
    threads = [
        threading.Thread(target=_drain, args=(connection, place, received, stop, failures), daemon=True)
        for place, connection in enumerate(connections)
    ]
    for thread in threads:
        thread.start()
    _write(received, writer, connections[FRAMES], stop, failures, answers)
    for thread in threads:
        thread.join(timeout=2.0)


def _recall(connections: Sequence[Connection], folder: Path) -> None:
    """Tell connections that can ask again what they delivered earlier in this run."""
    if not any(connection.recalls for connection in connections):
        return
    with closing(ArrivalsReader(folder)) as arrivals:
        for message in arrivals.read():
            if message.source < len(connections) and connections[message.source].recalls:
                connections[message.source].recall(message.parts)


def _stop_at_end_of_input(stop: threading.Event) -> None:
    sys.stdin.buffer.read()
    stop.set()


def _drain(
    connection: Connection,
    source: int,
    received: ReceivedQueue,
    stop: threading.Event,
    failures: queue.SimpleQueue[str],
) -> None:
    try:
        connection.drain(lambda parts: received.put(source, parts), stop)
    except UserError as error:
        failures.put(str(error))


def _write(
    received: ReceivedQueue,
    writer: ArrivalsWriter,
    frames: Connection,
    stop: threading.Event,
    failures: queue.SimpleQueue[str],
    answers: BinaryIO,
) -> None:
    """Write what comes until `stop` is set and everything is written."""
    status_due_s, trouble = 0.0, ""
    while True:
        message = received.get(POLL_S)
        try:
            _append_dropped(received, writer)
            if message is not None:
                source, received_at_s, parts = message
                if source == FRAMES and frames.begins_series(parts):
                    writer.end_file()
                writer.append(source, received_at_s, parts)
            trouble = ""
        except OSError as error:
            trouble = error.strerror or str(error)
            received.count_dropped(message is not None)
            time.sleep(POLL_S)
        if not failures.empty():
            _say(answers, ReceiverFailed(failures.get()))
        if time.monotonic() >= status_due_s:
            status_due_s = time.monotonic() + STATUS_PERIOD_S
            _say(answers, ReceiverStatus(trouble))
        if message is None and stop.is_set():
            _end(writer)
            return


def _end(writer: ArrivalsWriter) -> None:
    try:
        writer.append(STOPPED, time.time(), ())
        writer.end_file()
    except OSError as error:
        log.warning("the arrivals cannot be ended: %s", error)


def _append_dropped(received: ReceivedQueue, writer: ArrivalsWriter) -> None:
    """Write down how many messages were dropped, once."""
    if dropped := received.take_dropped():
        try:
            writer.append(DROPPED, time.time(), [str(dropped).encode()])
        except OSError:
            received.count_dropped(dropped)
            raise


def _say(answers: BinaryIO, status: ReceiverStatus | ReceiverFailed) -> None:
    try:
        answers.write(msgspec.json.encode(status) + b"\n")
        answers.flush()
    except BrokenPipeError:
        log.info("nobody listens to the receiver any more")


if __name__ == "__main__":
    main()
