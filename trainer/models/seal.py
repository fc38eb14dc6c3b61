"""The digest that a safetensors file carries of itself: a single bit that has changed on a disk is seen.

The entry `seal` of its metadata is the SHA-256 of the file with zeros in the seal's place.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

SEAL = "seal"
UNSEALED = "0" * 64
LENGTH_BYTES = 8
ALIGNMENT_BYTES = 8
"""Of the tensors behind the header."""
MAXIMUM_HEADER_BYTES = 100_000_000
"""Longer ones are no safetensors files."""
PART_BYTES = 1 << 20

# Quotation marks within the metadata's texts are escaped, so that only the entry itself is found.
_PLACE = re.compile(rb'"seal":"([0-9a-f]{64})"')


class BrokenSeal(ValueError):
    """A file that is not what was written; the text says what is wrong."""


def sealed(data: bytes) -> tuple[bytes, memoryview]:
    """Seal a safetensors file that has metadata; return its two parts, the second one not copied."""
    end = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "little")
    content, body = json.loads(data[LENGTH_BYTES:end]), memoryview(data)[end:]
    content["__metadata__"][SEAL] = UNSEALED
    text = json.dumps(content, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT_BYTES)
    length = len(text).to_bytes(LENGTH_BYTES, "little")
    hashed = hashlib.sha256(length + text)
    hashed.update(body)
    unsealed, seal = (f'"{SEAL}":"{digits}"'.encode() for digits in (UNSEALED, hashed.hexdigest()))
    return length + text.replace(unsealed, seal, 1), body


def check_seal(path: Path) -> None:
    """Read a file and compare it with its seal.

    Raises:
        BrokenSeal: it has changed, or carries no seal.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        length = file.read(LENGTH_BYTES)
        header_bytes = int.from_bytes(length, "little")
        header = file.read(header_bytes) if header_bytes <= MAXIMUM_HEADER_BYTES else b""
        unsealed, expected = _unsealed(header)
        if expected is None:
            raise BrokenSeal("it carries no digest of itself")
        found = hashlib.sha256(length + unsealed)
        while part := file.read(PART_BYTES):
            found.update(part)
    if found.hexdigest() != expected:
        raise BrokenSeal("it is not what was written: its SHA-256 differs")


def is_broken(data: bytes) -> bool:
    """Return whether a file carries a seal that does not fit it."""
    end = LENGTH_BYTES + min(int.from_bytes(data[:LENGTH_BYTES], "little"), MAXIMUM_HEADER_BYTES)
    unsealed, expected = _unsealed(data[LENGTH_BYTES:end])
    if expected is None:
        return False
    found = hashlib.sha256(data[:LENGTH_BYTES] + unsealed)
    found.update(memoryview(data)[end:])
    return found.hexdigest() != expected


def _unsealed(header: bytes) -> tuple[bytes, str | None]:
    """Return the header with zeros as its seal, and the seal; None if it has none."""
    place = _PLACE.search(header)
    if place is None:
        return header, None
    return header[: place.start(1)] + UNSEALED.encode() + header[place.end(1) :], place[1].decode()
