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
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec

from ptychoflow.acquisition.detectors.arrivals_file import DROPPED, LISTENING, STOPPED, ArrivalsReader, ArrivalsWriter
from ptychoflow.acquisition.detectors.interface import POLL_S, Connection, Part
from ptychoflow.acquisition.detectors.message import Message
from ptychoflow.acquisition.detectors.receiver_messages import ReceiverFailed, ReceiverJob, ReceiverStatus
from ptychoflow.acquisition.detectors.sources import make_connection
from ptychoflow.streaming.child_process import begin_child
from ptychoflow.streaming.errors import UserError
from ptychoflow.streaming.freed_memory import keep_freed_memory

log = logging.getLogger(__name__)

STATUS_PERIOD_S = 0.5
FRAMES = 0
"""The source that begins series."""
TOGETHER_S = 0.001
"""What comes within this time is written together: a thread that wakes for every message takes longer than to write."""
WRITTEN_TOGETHER = 128
WRITTEN_TOGETHER_BYTES = 1 << 23
LEAST_BYTES = 512
"""What a message takes in memory, however short it is."""
STOOD_STILL_S = 5 * POLL_S
"""A process that does nothing for so long was stopped, or had no processor: what came meanwhile waits at sockets."""


class Answers(Protocol):
    """What the process says how it stands to."""

    def write(self, line: bytes, /) -> int | None:
        """Take a line, all of it or nothing; return None where it would have to wait."""


class ReceivedQueue:
    """What was received and not yet written, bounded.

    Args:
        most_bytes: what comes while so much waits is dropped and counted; what can wait does so from half of it on.
    """

    def __init__(self, most_bytes: int) -> None:
        self._waiting: deque[tuple[Message, int]] = deque()
        self._there_are_some = threading.Event()
        self._lock = threading.Lock()
        self._less_waits = threading.Condition(self._lock)
        self._most_bytes, self._bytes, self._dropped = most_bytes, 0, 0
        self.clock_ahead_s = time.time() - time.monotonic()
        """Of the monotonic clock."""
        self._ran_s: float | None = None
        """When the process was last seen to run, on the monotonic clock; None while nobody calls `runs`."""

    def now_s(self) -> float:
        """Return the time of day as it was set when this was made: nothing is given up because a clock is set.

        Nor because the process stood still: that time is left out.
        """
        with self._lock:
            return self._time_s()

    def runs(self) -> None:
        """Take in that the process runs; called every `POLL_S` for as long as it does."""
        with self._lock:
            self._ran_s = self._ran_s or time.monotonic()
            self._time_s()

    def _time_s(self) -> float:
        monotonic_s = time.monotonic()
        if self._ran_s is not None:
            still_s, self._ran_s = monotonic_s - self._ran_s, monotonic_s
            self.clock_ahead_s -= still_s if still_s > STOOD_STILL_S else 0.0
        return monotonic_s + self.clock_ahead_s

    def put(self, source: int, parts: Sequence[Part]) -> None:
        """Take in one message. Does not block."""
        size = _bytes_in_memory(parts)
        with self._lock:
            if self._bytes + size > self._most_bytes and self._bytes:
                self._dropped += 1
            else:
                self._append(source, parts, size)

    def put_in_time(self, source: int, parts: Sequence[Part]) -> None:
        """Take in one message of a source that can wait. Blocks until there is room, also for those that cannot."""
        size = _bytes_in_memory(parts)
        with self._lock:
            self._less_waits.wait_for(lambda: self._bytes + size <= self._most_bytes // 2 or not self._bytes)
            self._append(source, parts, size)

    def _append(self, source: int, parts: Sequence[Part], size: int) -> None:
        self._bytes += size
        self._waiting.append((Message(source, self._time_s(), parts), size))
        if not self._there_are_some.is_set():
            self._there_are_some.set()

    def take(self, timeout_s: float) -> list[Message]:
        """Return the next messages, those that come together in one list; an empty one if none came in time."""
        if not self._there_are_some.wait(timeout_s):
            return []
        if len(self._waiting) < WRITTEN_TOGETHER:
            time.sleep(TOGETHER_S)
        taken: list[Message] = []
        taken_bytes = 0
        with self._lock:
            while self._waiting and len(taken) < WRITTEN_TOGETHER and taken_bytes < WRITTEN_TOGETHER_BYTES:
                message, size = self._waiting.popleft()
                taken.append(message)
                taken_bytes += size
            self._bytes -= taken_bytes
            self._less_waits.notify_all()
            if not self._waiting:
                self._there_are_some.clear()
        return taken

    @property
    def empty_at_s(self) -> float | None:
        """The time, if nothing waits: all that was put in before has been taken."""
        with self._lock:
            return None if self._waiting else self._time_s()

    def count_dropped(self, messages: int) -> None:
        """Count messages that could not be kept."""
        with self._lock:
            self._dropped += messages

    def take_dropped(self) -> int:
        """Return how many messages were dropped since the last call."""
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        return dropped


def _bytes_in_memory(parts: Sequence[Part]) -> int:
    return max(sum(map(len, parts)), LEAST_BYTES)


def main() -> None:
    """Receive until standard input is closed."""
    answers = _unblocked(begin_child())
    keep_freed_memory()
    job = msgspec.json.decode(sys.argv[1], type=ReceiverJob)
    stop = threading.Event()
    threading.Thread(target=_stop_at_end_of_input, args=(stop,), daemon=True).start()
    received, failures, broken = ReceivedQueue(job.queue_bytes), queue.SimpleQueue[str](), threading.Event()
    try:
        sources = job.source_settings()
        connections = [make_connection(settings) for settings in sources]
        writer = ArrivalsWriter(Path(job.folder), [settings.kind for settings in sources])
        claim = os.open(job.folder, os.O_RDONLY)
        fcntl.flock(claim, fcntl.LOCK_EX)  # an earlier receiver may still be writing what it has
        _recall(connections, Path(job.folder))
    except (UserError, OSError) as error:
        _say(answers, ReceiverFailed(str(error)))
        return
    threads = [
        threading.Thread(target=_drain, args=(connection, place, received, stop, broken, failures), daemon=True)
        for place, connection in enumerate(connections)
    ]
    received.put(LISTENING, ())
    threading.Thread(target=_see_running, args=(received,), daemon=True).start()
    for thread in threads:
        thread.start()
    _write(received, writer, connections[FRAMES], stop, broken, failures, answers)
    for thread in threads:
        thread.join(timeout=2.0)
    if broken.is_set():
        sys.exit("a source's thread has ended, see above")


def _recall(connections: Sequence[Connection], folder: Path) -> None:
    """Tell connections that can ask again what they delivered earlier in this run."""
    if not any(connection.recalls for connection in connections):
        return
    with closing(ArrivalsReader(folder)) as arrivals:
        for message in arrivals.read():
            if message.source < len(connections) and connections[message.source].recalls:
                connections[message.source].recall(message.parts)


def _see_running(received: ReceivedQueue) -> None:
    """Tell the queue that the process runs, for as long as it does: to wait for a slow disk is no standing still."""
    while True:
        received.runs()
        time.sleep(POLL_S)


def _stop_at_end_of_input(stop: threading.Event) -> None:
    while os.read(0, 1):  # `sys.stdin` would be locked while it is read, and a process that ends meanwhile aborts
        pass
    stop.set()


def _drain(
    connection: Connection,
    source: int,
    received: ReceivedQueue,
    stop: threading.Event,
    broken: threading.Event,
    failures: queue.SimpleQueue[str],
) -> None:
    """Drain a source; `broken` is set if that ends in an error that nobody has thought of.

    What can be asked for again can wait until there is room, which comes for certain: `_write` goes on until all is
    written or, with `stop` set, given up.
    """
    thought_of, put = False, received.put_in_time if connection.recalls else received.put
    try:
        connection.drain(lambda parts: put(source, parts), stop)
        thought_of = True
    except UserError as error:
        failures.put(str(error))
        thought_of = True
    finally:
        if not thought_of:
            broken.set()


def _write(
    received: ReceivedQueue,
    writer: ArrivalsWriter,
    frames: Connection,
    stop: threading.Event,
    broken: threading.Event,
    failures: queue.SimpleQueue[str],
    answers: Answers,
) -> None:
    """Write what comes until `stop` or `broken` is set and everything is written.

    What the disk does not take is kept and tried again; the queue drops what comes once it is full. With `stop` set and
    a disk that takes nothing there is nobody to wait for.
    """
    status_due_s, trouble, written_until_s = 0.0, "", 0.0
    messages: list[Message] = []
    failed: ReceiverFailed | None = None
    while True:
        messages = messages or received.take(POLL_S)
        try:
            _append_dropped(received, writer)
            while messages:
                together = _within_series(messages, frames)
                if _begins(messages[0], frames):
                    writer.end_file()
                writer.append_all(messages[:together])
                del messages[:together]
            trouble = ""
        except OSError as error:
            trouble = error.strerror or str(error)
            if stop.is_set():
                log.warning("%d messages could not be written: %s", len(messages), trouble)
                messages = []
            time.sleep(POLL_S)
        empty_at_s = None if messages else received.empty_at_s
        written_until_s = written_until_s if empty_at_s is None else empty_at_s
        failed = failed or (None if failures.empty() else ReceiverFailed(failures.get()))
        if failed is not None and _say(answers, failed):
            failed = None
        if time.monotonic() >= status_due_s:
            status_due_s = time.monotonic() + STATUS_PERIOD_S
            _say(answers, ReceiverStatus(trouble, written_until_s, received.clock_ahead_s))
        if empty_at_s is not None and (stop.is_set() or broken.is_set()):
            _end(writer, at_s=empty_at_s)
            return


def _begins(message: Message, frames: Connection) -> bool:
    """Whether a message begins a series."""
    return message.source == FRAMES and frames.begins_series(message.parts)


def _within_series(messages: Sequence[Message], frames: Connection) -> int:
    """Return how many of the first messages are of one series."""
    later = (place for place in range(1, len(messages)) if _begins(messages[place], frames))
    return next(later, len(messages))


def _end(writer: ArrivalsWriter, *, at_s: float) -> None:
    try:
        writer.append(STOPPED, at_s, ())
        writer.end_file()
    except OSError as error:
        log.warning("the arrivals cannot be ended: %s", error)


def _append_dropped(received: ReceivedQueue, writer: ArrivalsWriter) -> None:
    """Write down how many messages were dropped, once."""
    if dropped := received.take_dropped():
        try:
            writer.append(DROPPED, received.now_s(), [str(dropped).encode()])
        except OSError:
            received.count_dropped(dropped)
            raise


def _unblocked(answers: BinaryIO) -> Answers:
    """Return the pipe to the parent, made so that nothing waits for one that is stopped and reads nothing."""
    unbuffered = os.dup(answers.fileno())
    os.set_blocking(unbuffered, False)
    return os.fdopen(unbuffered, "wb", buffering=0)


def _say(answers: Answers, status: ReceiverStatus | ReceiverFailed) -> bool:
    """Say something, unless the pipe is full; return whether it was said. Never blocks."""
    try:
        return answers.write(msgspec.json.encode(status) + b"\n") is not None
    except BrokenPipeError:
        log.info("nobody listens to the receiver any more")
        return True


if __name__ == "__main__":
    main()
