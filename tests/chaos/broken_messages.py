"""Messages that are none, or no longer: a catalogue of what can be wrong with one, and good ones with changed bytes."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import numpy as np

from ptychoflow.streaming.codec import Codec, MalformedMessage, OversizedMessage
from ptychoflow.streaming.commands import AnyCommand, Pause, RollBackWeights, SetRegime
from ptychoflow.streaming.events import (
    MosaicImage,
    MosaicKind,
    Part,
    Regime,
    Telemetry,
    ValidationLoss,
    WarningRaised,
)
from ptychoflow.streaming.messages import (
    SCHEMA_VERSION,
    Acknowledge,
    ControlMessage,
    DataMessage,
    FirstPassScore,
    Frames,
    Hello,
    Reference,
    Samples,
    ScanEnd,
    Weights,
    WeightsRequest,
)
from ptychoflow.streaming.messages import GroundTruthSource as Source
from ptychoflow.streaming.publisher import EDGE

Parts = list[bytes]

ARRAYS = {"index": np.arange(3, dtype=np.int32), "diffraction": np.zeros((3, 2, 2), np.uint16)}
FILE = {"safetensors": np.zeros(5, np.uint8)}
EVENTS = (
    WarningRaised("dark frames"),
    ValidationLoss(1, 2, {0: 0.5, 1: 0.25}, 0.375, 1.0),
    MosaicImage(0, MosaicKind.REFRESHED, 3, (0.0, 1.0), (1e-9, 1e-9)),
)
SAID: dict[str, tuple[Any, list[tuple[Any, dict[str, Any]]]]] = {
    "data": (
        DataMessage,
        [
            (Frames(3, 12.5, 1.25), ARRAYS),
            (Samples(3), ARRAYS),
            (ScanEnd(9), {}),
            (Reference(0, 0.0, (1.0, 2.0), Source.RECORDED, 0.5), {"phase": np.zeros((2, 3), np.float32)}),
        ],
    ),
    "acknowledgements": (
        ControlMessage,
        [
            (Hello(EDGE, "s" * 32, 0, 0, 0), {}),
            (Acknowledge(EDGE, "s" * 32, [0, 1, 300]), {}),
            (FirstPassScore(0, 20.0, 0.5, 10.0), {}),
        ],
    ),
    "weights": (Weights, [(Weights(1, "0" * 64, 10, final=False), FILE)]),
    "requests": (WeightsRequest, [(WeightsRequest("edge", 3), {})]),
    "commands": (AnyCommand, [(Pause(), {}), (RollBackWeights(7), {}), (SetRegime(Regime.LEARNING), {})]),
    "telemetry": (
        Telemetry,
        [(Telemetry(1.0, Part.EDGE, 0, event), {"phase": np.zeros((2, 2), np.float32)}) for event in EVENTS],
    ),
}
CODECS = tuple(Codec[Any](body_type) for body_type, _ in SAID.values())
TOKENS = (
    b"\xff\xfe",
    b"\x91" * 3000,
    b"\x81" * 3000,
    b"\xc1",
    b"\xc0",
    b"\xcf" + b"\xff" * 8,
    b"\xd3\x80" + bytes(7),
    b"\xcb\x7f\xf8" + bytes(6),
    b"\xdb\xff\xff\xff\xff",
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xc9\xff\xff\xff\xff\x00",
    b"\xd8\xff" + bytes(16),
)
"""Texts that are no UTF-8, deep nesting, numbers beyond all, lengths beyond the message."""


def header(body: dict[str, Any], **array: Any) -> bytes:
    """Return a header that declares one array."""
    arrays = [{"name": "a", "dtype": "uint8", "shape": [4]} | array]
    return msgspec.msgpack.encode(
        {"schema": SCHEMA_VERSION, "session": "", "sequence": 0, "body": body, "arrays": arrays}
    )


BODIES: dict[str, dict[str, Any]] = {
    "data": {"type": "scan_end", "frames": 1},
    "acknowledgements": {"type": "acknowledge", "consumer": EDGE, "session": "", "sequences": []},
    "weights": {"type": "weights", "version": 1, "sha256": "", "step": 0, "final": True},
    "requests": {"type": "weights_request", "edge": "edge", "newer_than": 0},
    "commands": {"type": "pause"},
    "telemetry": {"time_s": 1.0, "part": "edge", "rank": 0, "event": {"type": "warning", "text": "x"}},
}
IMPOSSIBLE_SHAPES = ([0, 2**63], [2**64 - 1, 0], [0, 2**62, 4], [2**32, 2**32, 0])


def malformed(kind: str) -> list[Parts]:
    """Return one message for each way in which what comes to a port of this kind can be wrong."""
    body = BODIES[kind]
    good = header(body)
    return [
        [b""],
        [b"\xc1 no msgpack"],
        [b"\x91" * 100_000],
        [b"\x81\xa1x" + b"\x91" * 100_000],
        [good[:-20], b"1234"],
        [good, b"123"],
        [good],
        [good.replace(b"schema", b"sch\xffma"), b"1234"],
        [good.replace(b"uint8", b"uin\xff8"), b"1234"],
        [header(body, dtype="object"), b"1234"],
        [header(body, name="n" * 100), b"1234"],
        [header(body | {"type": "x\nERROR forged\x1b[2J" + "y" * 5000}), b"1234"],
        *([header(body, shape=shape), b""] for shape in IMPOSSIBLE_SHAPES),
    ]


def mutated(parts: Parts, chance: random.Random) -> Parts:
    """Return a message with a few of its bytes, or of its parts, changed."""
    parts = list(parts)
    for _ in range(chance.randint(1, 3)):
        part = chance.randrange(len(parts)) if chance.random() < 0.2 else 0
        raw = bytearray(parts[part])
        at = chance.randrange(len(raw) + 1)
        match chance.randrange(6):
            case 0:
                raw[at:at] = chance.choice(TOKENS)
            case 1:
                raw[at : at + chance.randint(1, 9)] = chance.choice(TOKENS)
            case 2:
                raw[at : at + 1] = bytes([chance.randrange(256)])
            case 3:
                del raw[at : at + chance.randint(1, 16)]
            case 4:
                other = chance.randrange(len(raw) + 1)
                raw[at:at] = raw[min(at, other) : max(at, other)]
            case 5:
                parts.insert(chance.randrange(len(parts) + 1), bytes(raw))
        parts[part] = bytes(raw)
    return parts


def broken(kind: str, chance: random.Random) -> Parts:
    """Return a message that nobody can read, from the catalogue or a good one with changed bytes.

    One that says that it is too large can be read: an inbox leaves out what is meant for it, and ignores the rest.
    """
    if chance.random() < 0.3:
        return chance.choice(malformed(kind))
    body_type, said = SAID[kind]
    body, arrays = chance.choice(said)
    good = [bytes(part) for part in Codec[Any](body_type).encode(body, arrays, session="s/0")]
    parts = mutated(good, chance)
    while any(_is_read(codec, parts) for codec in CODECS):
        parts = mutated(good, chance)
    return parts


def _is_read(codec: Codec[Any], parts: Parts) -> bool:
    try:
        codec.decode(parts)
    except OversizedMessage:
        return True
    except MalformedMessage:
        return False
    return True
