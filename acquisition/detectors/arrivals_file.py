"""The arrivals file: every message of every source of a scan, as it came, one after the other.

It is the recording of a live scan, and what the acquisition reads, while it grows and after a resume: a detector cannot
be asked again. One process appends, in a folder with one file per series; whoever reads follows from file to
file. A file begins with a line of JSON (format, version, names of the sources), then come records, each of one message
or of several that came together:

    head: magic u32, messages u32, parts u32, crc32 of the table u32, crc32 of these three u32
    table: received_at_s f64 of each message, bytes u64 of each part, source u32 of each message, parts u32 of each
    the bytes of the parts, one after the other

A record is only read when it is whole; zeros up to the end of a file are half a record. A message of the source `END`
says that no more will come in this file, and one of `LISTENING` that a receiver begins to listen: what a source said
before that, nobody may have heard.
"""

from __future__ import annotations

import logging
import mmap
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.detectors.message import Bytes, Message, Run
from ptychoflow.streaming.durable_file import UNFINISHED_SUFFIX, make_folder_durably, sync_names
from ptychoflow.streaming.errors import UserError

log = logging.getLogger(__name__)

SUFFIX = ".arrivals"
VERSION = 2
MAGIC = b"RAFP"
MAGIC_NUMBER = int.from_bytes(MAGIC, "little")
CLOSED = -1
"""In place of a file's descriptor."""
HEAD = struct.Struct("<IIIII")
CHECKED = slice(4, 16)
"""What the head's own crc32 covers."""
BYTES_OF_MESSAGE, BYTES_OF_PART = 16, 8
"""In the table."""
END = 0xFFFF
DROPPED = 0xFFFE
"""A record of this source holds, as text, how many messages the receiver could not keep."""
LISTENING = 0xFFFD
"""A record of this source, without parts, is the first of every receiver."""
STOPPED = 0xFFFC
"""A record of this source, without parts, is the last of a receiver: until then it listened."""
WRITTEN_AT_ONCE = 1024
"""Pieces that the system takes in one call."""
POPULATE = getattr(mmap, "MAP_POPULATE", 0)
"""Pages are there when they are looked at; one by one they would take longer than what is done with them."""
PAGE_BYTES = 4096
LOOKED_AT_BYTES = 1 << 20
"""At once, where a file lost its end."""
WINDOW_BYTES = 1 << 26
"""Mapped at once, unless one record is larger."""


class Preamble(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line of an arrivals file."""

    version: int
    sources: list[str]
    """What `Message.source` counts."""
    format: str = "ptychoflow arrivals"


@dataclass(frozen=True)
class Record:
    """Messages that came together."""

    sources: npt.NDArray[np.uint32]
    """(messages,); see `Message.source`."""
    messages: Run
    """All of them, as if they were of one source."""

    @classmethod
    def of(cls, window: memoryview, table: int, begin: int, messages: int, parts: int) -> Record:
        """Read the table of a record."""
        received_at_s = np.frombuffer(window, "<f8", messages, table)
        bounds = np.empty(parts + 1, np.int64)
        bounds[0] = begin
        bounds[1:] = np.frombuffer(window, "<u8", parts, table + 8 * messages)
        numbers = np.frombuffer(window, "<u4", 2 * messages, table + 8 * (messages + parts))
        counts = numbers[messages:].astype(np.int64)
        return cls(numbers[:messages], Run(-1, received_at_s, window, counts, bounds.cumsum()))

    def runs(self) -> Iterator[Run]:
        """Yield the messages, those of one source that came one after the other together."""
        cuts = [0, *(np.flatnonzero(self.sources[1:] != self.sources[:-1]) + 1).tolist(), len(self.sources)]
        for start, stop in pairwise(cuts):
            yield replace(self.messages.part(start, stop), source=int(self.sources[start]))


class ArrivalsWriter:
    """Appends messages to the files of a folder; the only one that does.

    Args:
        folder: made if need be; new files come after those that are there.
        sources: their names.

    Raises:
        OSError: the disk does not take it, here and in every method.
    """

    def __init__(self, folder: Path, sources: Sequence[str]) -> None:
        make_folder_durably(folder)
        self._folder = folder
        self._preamble = msgspec.json.encode(Preamble(VERSION, list(sources))) + b"\n"
        self._file, self._length, self._name_is_on_disk = CLOSED, 0, False

    def append(self, source: int, received_at_s: float, parts: Sequence[Bytes]) -> None:
        """Write one message; a file begins with its first. Blocks for the disk."""
        self.append_all([Message(source, received_at_s, parts)])

    def append_all(self, messages: Sequence[Message]) -> None:
        """Write messages that came together, all or none of them."""
        if self._file == CLOSED:
            self._begin()
        if not self._name_is_on_disk:
            sync_names(self._folder)
            self._name_is_on_disk = True
        self._write(messages)

    def end_file(self) -> None:
        """End the file, if one has begun: the next message begins another one."""
        if self._file != CLOSED:
            self._write([Message(END, 0.0, ())])
            # nothing may follow in a file that has its end, whatever the disk says
            file, self._file = self._file, CLOSED
            try:
                os.fdatasync(file)
            finally:
                os.close(file)

    def _begin(self) -> None:
        number = max((int(path.stem) for path in arrivals_files(self._folder)), default=0) + 1
        path = self._folder / f"{number:06d}{SUFFIX}"
        # a reader may have opened what has the name, so that it cannot be taken back
        unfinished = path.with_name(path.name + UNFINISHED_SUFFIX)
        file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        try:
            _write_all(file, [memoryview(self._preamble)])
            unfinished.replace(path)
        except OSError:
            os.close(file)
            unfinished.unlink(missing_ok=True)
            raise
        self._file, self._length, self._name_is_on_disk = file, len(self._preamble), False

    def _write(self, messages: Sequence[Message]) -> None:
        pieces = [
            part if type(part) is bytes else memoryview(part).cast("B")
            for message in messages
            for part in message.parts
        ]
        lengths = [len(piece) for piece in pieces]
        table = struct.pack(
            f"<{len(messages)}d{len(pieces)}Q{2 * len(messages)}I",
            *[message.received_at_s for message in messages],
            *lengths,
            *[message.source for message in messages],
            *[len(message.parts) for message in messages],
        )
        checked = struct.pack("<III", len(messages), len(pieces), zlib.crc32(table))
        head = b"".join((MAGIC, checked, _crc(checked), table))
        try:
            _write_all(self._file, [head, *pieces])
        except OSError:
            os.ftruncate(self._file, self._length)  # the next record must not follow half of this one
            raise
        self._length += len(head) + sum(lengths)


def _crc(content: Bytes) -> bytes:
    return zlib.crc32(content).to_bytes(4, "little")


def _write_all(file: int, pieces: Sequence[bytes | memoryview]) -> None:
    for start in range(0, len(pieces), WRITTEN_AT_ONCE):
        some = pieces[start : start + WRITTEN_AT_ONCE]
        left = sum(map(len, some)) - os.writev(file, some)
        if left > 0:
            _write_rest(file, some, left)


def _write_rest(file: int, pieces: Sequence[bytes | memoryview], left: int) -> None:
    """Write the last bytes of pieces of which the system took only the first ones."""
    rest = memoryview(b"".join(pieces))[-left:]
    while rest:
        rest = rest[os.writev(file, [rest]) :]


def arrivals_files(folder: Path) -> list[Path]:
    """Return the arrivals files of a folder in order."""
    return [folder / name for name in _names(folder)]


def _names(folder: Path) -> list[str]:
    """Return the names of the arrivals files of a folder in order; it is looked at whenever all has been read."""
    try:
        names = os.listdir(folder)  # noqa: PTH208
    except FileNotFoundError:
        return []
    return sorted(name for name in names if name.endswith(SUFFIX) and name.removesuffix(SUFFIX).isdecimal())


class ArrivalsReader:
    """Reads the files of a folder in order, as they grow.

    Args:
        folder: may still be empty.

    Raises:
        UserError: a file is none of arrivals, or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path: Path | None = None
        self._file = -1
        self._at = 0
        self._ended = False
        self.sources: list[str] = []
        """Names of the sources in the file that was read last."""

    def read(self) -> Iterator[Message]:
        """Yield the messages that are there; return when there are no more for now. Does not block."""
        for record in self.records():
            for run in record.runs():
                yield from run.messages()

    def records(self) -> Iterator[Record]:
        """Yield the records that are there, but for those that end a file; return when there are no more for now."""
        while True:
            yield from self._read_file()
            if not self._open_next():
                return

    def close(self) -> None:
        """Close the file."""
        if self._path is not None:
            os.close(self._file)
            self._path = None

    def _open_next(self) -> bool:
        """Go on to the next file, if there is one and nothing more comes in this one."""
        later = [name for name in _names(self._folder) if self._path is None or name > self._path.name]
        if not later or (self._path is not None and not self._ended and self._grows_again()):
            return False
        if self._path is not None and not self._ended and (torn := os.fstat(self._file).st_size - self._at):
            log.warning("%s: the receiver ended in the middle of a message; %d bytes are left out", self._path, torn)
        self.close()
        path = self._folder / later[0]
        self._file, self._path, self._at, self._ended = os.open(path, os.O_RDONLY), path, 0, False
        return True

    def _grows_again(self) -> bool:
        """Whether a record came since the file was read to its end: a later file says that it is the last time."""
        return self._at > 0 and any(True for _ in self._records(os.fstat(self._file).st_size, self._at))

    def _read_file(self) -> Iterator[Record]:
        if self._path is None or self._ended:
            return
        size = os.fstat(self._file).st_size
        if self._at == 0 and not self._read_preamble(size):
            return
        for record, after in self._records(size, self._at):
            self._at = after
            if record.sources[0] == END:
                self._ended = True
                return
            yield record

    def _read_preamble(self, size: int) -> bool:
        line = os.pread(self._file, min(size, 1 << 16), 0)
        if b"\n" not in line:
            if len(line) == 1 << 16 and not self._is_zero(0, size):
                raise UserError(f"{self._path}: this is no arrivals file")
            return False
        first = line[: line.index(b"\n")]
        try:
            preamble = msgspec.json.decode(first, type=Preamble)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{self._path}: this is no arrivals file: {error}") from None
        if preamble.version != VERSION:
            raise UserError(f"{self._path}: version {preamble.version} of arrivals files is not known; {VERSION} is")
        self.sources = preamble.sources
        self._at = len(first) + 1
        return True

    def _records(self, size: int, at: int) -> Iterator[tuple[Record, int]]:
        """Yield the whole records from `at` on with the place behind each."""
        least = WINDOW_BYTES
        while at < size:
            start = at - at % mmap.ALLOCATIONGRANULARITY
            length = min(size - start, at - start + least)
            window = memoryview(
                mmap.mmap(self._file, length, flags=mmap.MAP_SHARED | POPULATE, prot=mmap.PROT_READ, offset=start)
            )
            least = WINDOW_BYTES
            place = at - start
            while True:
                # half a record is taken back by its writer where the disk is full
                size = os.fstat(self._file).st_size
                try:
                    record, need = self._record(window, place, min(len(window), size - start))
                except UserError:
                    if self._lost_its_end(start + place, size):
                        return
                    raise
                if record is None:
                    break
                place += need
                yield record, start + place
            if start + place + need > size:
                return
            at, least = start + place, max(WINDOW_BYTES, need)

    def _lost_its_end(self, at: int, size: int) -> bool:
        """Whether there are but zeros from `at` on, or from a page behind it on.

        After a power cut a file may have its length and not what was written last.
        """
        behind = (at // PAGE_BYTES + 1) * PAGE_BYTES
        return self._is_zero(at, size) or self._is_zero(behind, size)

    def _is_zero(self, at: int, size: int) -> bool:
        """Whether there are bytes from `at` on, and all of them are 0."""
        there = at < size
        while at < size and (piece := os.pread(self._file, min(LOOKED_AT_BYTES, size - at), at)):
            if piece != bytes(len(piece)):
                return False
            at += len(piece)
        return there

    def _record(self, window: memoryview, place: int, there: int) -> tuple[Record | None, int]:
        """Return the record at `place`, if the first `there` bytes of the window hold it, and its length.

        If they do not, the length is as much as must be there to tell.
        """
        table = place + HEAD.size
        if table > there:
            return None, HEAD.size
        magic, messages, parts, table_crc, crc = HEAD.unpack_from(window, place)
        if magic != MAGIC_NUMBER or zlib.crc32(window[place + CHECKED.start : place + CHECKED.stop]) != crc:
            raise UserError(f"{self._path}: damaged; what came after it cannot be read")
        first = table + BYTES_OF_MESSAGE * messages + BYTES_OF_PART * parts
        if first > there:
            return None, first - place
        if zlib.crc32(window[table:first]) != table_crc:
            raise UserError(f"{self._path}: damaged; what came after it cannot be read")
        record = Record.of(window, table, first, messages, parts)
        if messages == 0 or record.messages.parts.sum() != parts:
            raise UserError(f"{self._path}: damaged; what came after it cannot be read")
        end = int(record.messages.bounds[-1])
        return (record if end <= there else None), end - place
