"""The arrivals file: every message of every source of a scan, as it came, one after the other.

It is the recording of a live scan, and what the acquisition reads, while it grows and after a resume: a detector cannot
be asked again. One process appends, in a folder with one file per series; whoever reads follows from file to
file. A file begins with a line of JSON (format, version, names of the sources), then come records:

    head: magic u32, crc32 of what follows u32, source u16, parts u16, received_at_s f64, crc32 of the lengths u32
    lengths of the parts: u64 each
    parts: their bytes, one after the other

A record is only read when it is whole. Its source `END` says that no more will come in this file, and `LISTENING`
that a receiver begins to listen: what a source said before that, nobody may have heard.
"""

from __future__ import annotations

import logging
import mmap
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ptychoflow.acquisition.detectors.interface import Part
from ptychoflow.streaming.durable_file import make_folder_durably, sync_names
from ptychoflow.streaming.errors import UserError

log = logging.getLogger(__name__)

SUFFIX = ".arrivals"
VERSION = 1
MAGIC = 0x50464152
CLOSED = -1
"""In place of a file's descriptor."""
HEAD = struct.Struct("<IIHHdI")
CHECKED_FROM = 8
"""The first crc32 covers the head from here on."""
END = 0xFFFF
DROPPED = 0xFFFE
"""A record of this source holds, as text, how many messages the receiver could not keep."""
LISTENING = 0xFFFD
"""A record of this source, without parts, is the first of every receiver."""
STOPPED = 0xFFFC
"""A record of this source, without parts, is the last of a receiver: until then it listened."""
WRITTEN_AT_ONCE = 1024
"""Pieces that the system takes in one call."""
WINDOW_BYTES = 1 << 26
"""Mapped at once, unless one record is larger."""


class Preamble(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line of an arrivals file."""

    version: int
    sources: list[str]
    """What `Message.source` counts."""
    format: str = "ptychoflow arrivals"


@dataclass(frozen=True)
class Message:
    """One record: what came from one source at one time."""

    source: int
    """Index into the names of the sources, or `DROPPED`, `LISTENING` or `STOPPED`."""
    received_at_s: float
    parts: tuple[memoryview, ...]
    """Mapped from the file: who keeps one holds no memory of its own."""


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
        self._file, self._length = CLOSED, 0

    def append(self, source: int, received_at_s: float, parts: Sequence[Part]) -> None:
        """Write one message; a file begins with its first. Blocks for the disk."""
        if self._file == CLOSED:
            self._begin()
        self._write(source, received_at_s, parts)

    def end_file(self) -> None:
        """End the file, if one has begun: the next message begins another one."""
        if self._file != CLOSED:
            self._write(END, 0.0, ())
            os.fdatasync(self._file)
            os.close(self._file)
            self._file = CLOSED

    def _begin(self) -> None:
        number = max((int(path.stem) for path in arrivals_files(self._folder)), default=0) + 1
        path = self._folder / f"{number:06d}{SUFFIX}"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        try:
            _write_all(file, [memoryview(self._preamble)])
            sync_names(self._folder)
        except OSError:
            os.close(file)
            path.unlink()
            raise
        self._file, self._length = file, len(self._preamble)

    def _write(self, source: int, received_at_s: float, parts: Sequence[Part]) -> None:
        views = [memoryview(part).cast("B") for part in parts]
        lengths = struct.pack(f"<{len(views)}Q", *map(len, views))
        rest = struct.pack("<HHdI", source, len(views), received_at_s, zlib.crc32(lengths))
        head = struct.pack("<II", MAGIC, zlib.crc32(rest)) + rest + lengths
        try:
            _write_all(self._file, [memoryview(head), *views])
        except OSError:
            os.ftruncate(self._file, self._length)  # the next record must not follow half of this one
            raise
        self._length += len(head) + sum(map(len, views))


def _write_all(file: int, pieces: list[memoryview]) -> None:
    while pieces:
        written = os.writev(file, pieces[:WRITTEN_AT_ONCE])
        while pieces and written >= len(pieces[0]):
            written -= len(pieces.pop(0))
        if pieces:
            pieces[0] = pieces[0][written:]


def arrivals_files(folder: Path) -> list[Path]:
    """Return the arrivals files of a folder in order."""
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if path.stem.isdecimal())


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
        later = [path for path in arrivals_files(self._folder) if self._path is None or path.name > self._path.name]
        if not later or (self._path is not None and not self._ended and self._grows_again()):
            return False
        if self._path is not None and not self._ended and (torn := os.fstat(self._file).st_size - self._at):
            log.warning("%s: the receiver ended in the middle of a message; %d bytes are left out", self._path, torn)
        self.close()
        self._file, self._path, self._at, self._ended = os.open(later[0], os.O_RDONLY), later[0], 0, False
        return True

    def _grows_again(self) -> bool:
        """Whether a record came since the file was read to its end: a later file says that it is the last time."""
        return self._at > 0 and any(True for _ in self._records(os.fstat(self._file).st_size, self._at))

    def _read_file(self) -> Iterator[Message]:
        if self._path is None or self._ended:
            return
        size = os.fstat(self._file).st_size
        if self._at == 0 and not self._read_preamble(size):
            return
        for message, after in self._records(size, self._at):
            self._at = after
            if message.source == END:
                self._ended = True
                return
            yield message

    def _read_preamble(self, size: int) -> bool:
        line = os.pread(self._file, min(size, 1 << 16), 0)
        if b"\n" not in line:
            if len(line) == 1 << 16:
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

    def _records(self, size: int, at: int) -> Iterator[tuple[Message, int]]:
        """Yield the whole records from `at` on with the place behind each."""
        least = WINDOW_BYTES
        while at < size:
            start = at - at % mmap.ALLOCATIONGRANULARITY
            length = min(size - start, at - start + least)
            window = memoryview(mmap.mmap(self._file, length, access=mmap.ACCESS_READ, offset=start))
            least = WINDOW_BYTES
            place = at - start
            while (need := self._bytes_needed(window, place)) <= length - place:
                message = _message(window, place)
                place += need
                yield message, start + place
            if start + place + need > size:
                return
            at, least = start + place, max(WINDOW_BYTES, need)

    def _bytes_needed(self, window: memoryview, place: int) -> int:
        """Return the length of the record at `place`, or of as much of it as must be there to tell."""
        if place + HEAD.size > len(window):
            return HEAD.size
        magic, crc, _, parts, _, lengths_crc = HEAD.unpack_from(window, place)
        head_bytes = HEAD.size + 8 * parts
        if magic != MAGIC or zlib.crc32(window[place + CHECKED_FROM : place + HEAD.size]) != crc:
            raise UserError(f"{self._path}: damaged; what came after it cannot be read")
        if place + head_bytes > len(window):
            return int(head_bytes)
        if zlib.crc32(window[place + HEAD.size : place + head_bytes]) != lengths_crc:
            raise UserError(f"{self._path}: damaged; what came after it cannot be read")
        lengths: tuple[int, ...] = struct.unpack_from(f"<{parts}Q", window, place + HEAD.size)
        return int(head_bytes) + sum(lengths)


def _message(window: memoryview, place: int) -> Message:
    _, _, source, count, received_at_s, _ = HEAD.unpack_from(window, place)
    lengths = struct.unpack_from(f"<{count}Q", window, place + HEAD.size)
    begin = place + HEAD.size + 8 * count
    parts = []
    for length in lengths:
        parts.append(window[begin : begin + length])
        begin += length
    return Message(source, received_at_s, tuple(parts))
