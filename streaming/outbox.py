"""What one consumer has still to get: numbered, kept until acknowledged, in memory first and on disk beyond a bound.

PUSH/PULL alone loses what is in flight when a receiver dies; an entry therefore stays here until its consumer
acknowledges it, and is sent again after a reconnection.
"""

from __future__ import annotations

import contextlib
import logging
import math
import struct
import sys
import time
import zlib
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from ptychoflow.streaming.codec import Arrays, Codec
from ptychoflow.streaming.messages import Complete, DataMessage, LeftOut
from ptychoflow.streaming.sockets import Socket, read_events, takes_more

log = logging.getLogger(__name__)

CHECKSUM, LENGTH = struct.Struct("<I"), struct.Struct("<Q")
"""What a spool file begins with, and each part in it."""
BREAK_OVER_S = 0.5
"""By then ZeroMQ deals no more messages to a connection that it has told the end of."""
MOST_PATIENCE_S = 60.0
"""Whoever touches a port makes a connection that breaks off: nothing is sent again more often than this for that."""
RETRY_S = 1.0
"""So long after a disk took nothing it is tried again."""


class DamagedBatch(Exception):
    """A message cannot be read back from its spool file; the text says why."""


@dataclass
class Entry:
    """A message on its way, in memory or in a spool file."""

    order: int
    """Place in the publisher's order over all consumers."""
    message: DataMessage
    arrays: Arrays | None
    file: Path | None = None
    consumers: set[str] = field(default_factory=set)
    """Who has yet to acknowledge it."""
    held: bool = False
    """Acknowledged, and kept for a consumer that is started again."""

    @property
    def bytes_in_memory(self) -> int:
        """Bytes of the arrays that are held in memory."""
        return sum(array.nbytes for array in self.arrays.values()) if self.arrays is not None else 0


class Spool:
    """Keeps entries in memory up to a bound and writes the rest to files in `directory`.

    Args:
        directory: made when the first file is written.
        memory_bytes: arrays held in memory at most.
    """

    def __init__(self, directory: Path, *, memory_bytes: int) -> None:
        self._directory = directory
        # what it reads it has written, as large as that may be
        self._codec: Codec[DataMessage] = Codec(DataMessage, max_message_bytes=sys.maxsize)
        self._memory_limit = memory_bytes
        self._memory = 0
        self.written_bytes = 0
        self.disk_error: str | None = None
        """Why the last spool file could not be written; None while the disk takes them."""
        self._refused: dict[int, Entry] = {}
        """What the disk did not take, by its order."""
        self._retry_at_s = 0.0
        self._files: set[Path] = set()

    @property
    def full(self) -> bool:
        """Whether memory is over its bound because the disk takes no more: stop acquiring until this clears."""
        return self._memory > self._memory_limit

    def store(self, entry: Entry) -> None:
        """Keep an entry; blocks for a disk write when memory is full. Nothing is lost when the disk is full too."""
        size = entry.bytes_in_memory
        if self._memory + size > self._memory_limit and entry.arrays:
            self._try_to_write(entry)
            size = entry.bytes_in_memory
        self._memory += size

    def make_room(self) -> None:
        """While memory is full, try the disk again once a second; blocks for what it takes."""
        if not self.full or (now_s := time.monotonic()) < self._retry_at_s:
            return
        self._retry_at_s = now_s + RETRY_S
        while self.full and self._refused:
            entry = next(iter(self._refused.values()))
            before = entry.bytes_in_memory
            self._try_to_write(entry)
            self._memory -= before - entry.bytes_in_memory
            if self.disk_error is not None:
                return

    def load(self, entry: Entry) -> Arrays:
        """Return the entry's arrays, from its file when it is spooled.

        Raises:
            DamagedBatch: the file is gone, or holds something else than was written.
        """
        if entry.arrays is not None:
            return entry.arrays
        if entry.file is None:
            raise AssertionError(f"entry {entry.order} is neither in memory nor on disk")
        try:
            raw = entry.file.read_bytes()
        except OSError as error:
            raise DamagedBatch(f"{entry.file}: {error.strerror}") from error
        content = memoryview(raw)[CHECKSUM.size :]
        if raw[: CHECKSUM.size] != CHECKSUM.pack(zlib.crc32(content)):
            raise DamagedBatch(f"{entry.file} is damaged")
        return self._codec.decode(_split(content)).arrays

    def remove(self, entry: Entry) -> None:
        """Forget an entry that every consumer has acknowledged."""
        self._memory -= entry.bytes_in_memory
        self._refused.pop(entry.order, None)
        if entry.file is not None:
            entry.file.unlink(missing_ok=True)
            self._files.discard(entry.file)

    def close(self) -> None:
        """Delete the files that are left: a run that resumes makes anew what was never acknowledged."""
        while self._files:
            self._files.pop().unlink(missing_ok=True)

    def _try_to_write(self, entry: Entry) -> None:
        try:
            self._write(entry)
        except OSError as error:
            if self.disk_error is None:
                log.warning("cannot spool to %s (%s): holding batches in memory", self._directory, error.strerror)
            self.disk_error = error.strerror or str(error)
            self._refused[entry.order] = entry
        else:
            self.disk_error = None
            self._refused.pop(entry.order, None)

    def _write(self, entry: Entry) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"{entry.order:010d}.batch"
        parts = self._codec.encode(entry.message, entry.arrays)
        pieces = [piece for part in parts for piece in (LENGTH.pack(len(part)), part)]
        checksum = 0
        for piece in pieces:
            checksum = zlib.crc32(piece, checksum)
        try:
            with path.open("wb") as file:
                file.writelines([CHECKSUM.pack(checksum), *pieces])
        except OSError:
            path.unlink(missing_ok=True)
            raise
        self.written_bytes += path.stat().st_size
        entry.arrays, entry.file = None, path
        self._files.add(path)


class Outbox:
    """Entries for one consumer, sent in order over one PUSH socket.

    Args:
        consumer: its name, `edge` or `rank-R`.
        socket: bound PUSH socket that only this consumer connects to.
        breaks: its monitor, for `zmq.Event.DISCONNECTED`.
        spool: holds the entries' arrays.
    """

    def __init__(self, consumer: str, *, socket: Socket, breaks: Socket, spool: Spool) -> None:
        self.consumer = consumer
        self.session: str | None = None
        self._address = ""
        self.socket = socket
        self.resent = 0
        self._breaks, self._again_at_s, self._patience_s = breaks, math.inf, BREAK_OVER_S
        self._spool = spool
        self._codec: Codec[DataMessage] = Codec(DataMessage)
        self._waiting: deque[tuple[int, Entry]] = deque()
        self._sent: OrderedDict[int, Entry] = OrderedDict()
        self._held: dict[int, Entry] = {}
        self._next_sequence = 0

    @property
    def can_send(self) -> bool:
        """Whether entries wait and the consumer has announced itself."""
        return bool(self._waiting) and self.session is not None

    @property
    def complete(self) -> bool:
        """Whether the consumer is there and has finished with everything; what is held is for another."""
        return self.session is not None and not (self._waiting or self._sent)

    @property
    def unacknowledged(self) -> list[Entry]:
        """Entries that the consumer has not finished with, in order."""
        return [*self._sent.values(), *(entry for _sequence, entry in self._waiting)]

    def post(self, entry: Entry) -> None:
        """Append an entry."""
        entry.consumers.add(self.consumer)
        self._waiting.append((self._next_sequence, entry))
        self._next_sequence += 1

    def hello(self, session: str, next_sequence: int, call: int) -> int:
        """Queue again what the consumer has not acknowledged; an unknown session also gets what is held.

        Args:
            session: of the consumer.
            next_sequence: where an unknown session is counted from.
            call: how often the session has said hello; what is sent from now on answers this one.

        Returns:
            How many of the entries were held.
        """
        held = [] if session == self.session else self._pop_held()
        entries = sorted([*held, *self.unacknowledged], key=lambda entry: entry.order)
        self.resent += len(self._sent) + len(held)
        if session == self.session:
            numbers = [*self._sent, *(sequence for sequence, _entry in self._waiting)]
        else:
            self._next_sequence = next_sequence + len(entries)
            numbers = list(range(next_sequence, self._next_sequence))
        self.session, self._address = session, address(session, call)
        self._again_at_s, self._patience_s = math.inf, BREAK_OVER_S
        self._sent.clear()
        self._waiting = deque(zip(numbers, entries, strict=True))
        return len(held)

    def look_for_breaks(self) -> None:
        """Queue again what was sent and not acknowledged, soon after a connection broke off; never blocks.

        A consumer whose own connection breaks says so itself. But where the host of one before it went without a word,
        messages are dealt to the dead connection too, until nobody has answered on it for a while, and go with it.
        What has come all the same is known to the consumer by its number.

        Which connection it was ZeroMQ does not tell, and it may have been a stranger's, such as a scan of ports: until
        the consumer says hello again, each time is twice as long after the break as the time before.
        """
        now_s = time.monotonic()
        if zmq.Event.DISCONNECTED in list(read_events(self._breaks)):
            self._again_at_s = min(self._again_at_s, now_s + self._patience_s)
        if now_s > self._again_at_s:
            self._again_at_s = math.inf
            if self._sent:
                self._patience_s = min(2.0 * self._patience_s, MOST_PATIENCE_S)
            self.resent += len(self._sent)
            self._waiting.extendleft(reversed(self._sent.items()))
            self._sent.clear()

    def send(self) -> int:
        """Send entries until none waits or the socket is at its high-water mark; return how many left. Never blocks."""
        count = 0
        # Asked first, because an entry may have to be read from disk only to be refused.
        while self.can_send and takes_more(self.socket):
            sequence, entry = self._waiting[0]
            message, arrays = self._load(entry)
            parts = self._codec.encode(message, arrays, session=self._address, sequence=sequence)
            try:
                self.socket.send_multipart(parts, flags=zmq.DONTWAIT, copy=False)
            except zmq.Again:
                break
            self._waiting.popleft()
            self._sent[sequence] = entry
            count += 1
        return count

    def _load(self, entry: Entry) -> tuple[DataMessage, Arrays]:
        """Return what to send: the frames of a batch that is damaged have no end in the ledger, and a resume has them.

        Its number has to come all the same, as the consumer takes nothing out of turn.
        """
        try:
            return entry.message, self._spool.load(entry)
        except DamagedBatch as error:
            log.warning("%s goes without a batch: %s; resume the run to send it again", self.consumer, error)
            return LeftOut(), {}

    def say_complete(self) -> None:
        """Tell the consumer that all its acknowledgements have come; it asks again if that is lost."""
        with contextlib.suppress(zmq.Again):
            parts = self._codec.encode(Complete(), session=self._address)
            self.socket.send_multipart(parts, flags=zmq.DONTWAIT)

    def acknowledge(self, session: str, sequences: Iterable[int]) -> list[Entry]:
        """Take entries off, and return them.

        Args:
            session: that has finished with them; those of an earlier one are ignored.
            sequences: their numbers in it.
        """
        if session != self.session:
            return []
        settled = []
        for sequence in sequences:
            entry = self._sent.pop(sequence, None) or self._held.pop(sequence, None) or self._pop_waiting(sequence)
            if entry is not None:
                entry.consumers.discard(self.consumer)
                settled.append(entry)
        return settled

    def hold(self, session: str, sequences: Iterable[int]) -> int:
        """Keep entries for a session after this one.

        Args:
            session: that has finished with them; those of an earlier one are ignored.
            sequences: their numbers in it.

        Returns:
            How many are kept.
        """
        if session != self.session:
            return 0
        found = {sequence: self._sent.pop(sequence) for sequence in sequences if sequence in self._sent}
        for entry in found.values():
            entry.held = True
        self._held |= found
        return len(found)

    def _pop_waiting(self, sequence: int) -> Entry | None:
        """Remove an entry that is to be sent again, although the consumer has already finished with it."""
        for numbered in self._waiting:
            if numbered[0] == sequence:
                self._waiting.remove(numbered)
                return numbered[1]
        return None

    def _pop_held(self) -> list[Entry]:
        held, self._held = list(self._held.values()), {}
        for entry in held:
            entry.held = False
        return held

    def pop_unacknowledged(self) -> list[Entry]:
        """Remove and return everything that is not acknowledged, to be dealt out again."""
        entries = self.unacknowledged
        for entry in entries:
            entry.consumers.discard(self.consumer)
        self._sent.clear()
        self._waiting.clear()
        return entries


def address(session: str, call: int) -> str:
    """Return what messages to a session bear that answer its hello number `call`."""
    return f"{session}/{call}"


def _split(content: memoryview) -> list[memoryview]:
    parts, offset = [], 0
    while offset < len(content):
        (length,) = LENGTH.unpack_from(content, offset)
        offset += LENGTH.size + length
        parts.append(content[offset - length : offset])
    return parts
