"""Feeds a decoder messages that are damaged in every way that comes to mind: it must say so, quickly, and go on.

A module of a source's tests has a `Stream`, say `STREAM` in `dectris_v2_messages`. A short run is a test; a long one is

    python tests/acquisition/detectors/mutated_messages.py dectris_v2_messages:STREAM 100000

which starts a process for every thousand messages, so that one that crashes, hangs or takes too much memory is counted
and named by its seed, and the rest goes on.
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ptychoflow.acquisition.detectors.arrivals import FrameCame, FramesCame, Malformed, SeriesEnded
from ptychoflow.acquisition.detectors.compression import CompressedImage, decode_together
from ptychoflow.acquisition.detectors.interface import Decoder
from ptychoflow.acquisition.detectors.message import Run

MESSAGES_PER_PROCESS = 1000
SLOWEST_S = 10.0
"""A message that takes longer is taken for a hang, and the process ends."""
MEMORY_BYTES = 1 << 30
"""What a process may take beyond what it has when it begins."""
WILD_NUMBERS = ("-1", "0", "1e400", "NaN", "-1e-300", "9" * 400, "18446744073709551615", "null", '"1"', "[]", "true")
WILD_BYTES = (b"", b"\0", b"\xff", b"\xff" * 8, b"\0" * 8, b"\x7f" + b"\xff" * 7, b"{}", b"[", b"\x9b" + b"\xff" * 8)
Message = Sequence[bytes]


@dataclass(frozen=True)
class Stream:
    """What is mutated: messages that a decoder understands, in their order."""

    decoder: Callable[[], Decoder]
    messages: Callable[[], Sequence[Message]]
    in_runs: bool = False
    """Whether the decoder gets many at once; what it says of them is compared with what it says one by one."""


@dataclass
class Outcome:
    """What became of mutated messages."""

    messages: int = 0
    arrivals: int = 0
    malformed: int = 0
    frames: int = 0
    damaged_frames: int = 0
    together: int = 0
    """Frames that were understood together with others."""
    slowest_s: float = 0.0
    most_memory_bytes: int = 0

    def add(self, other: Outcome) -> None:
        """Take in another one."""
        for name in ("messages", "arrivals", "malformed", "frames", "damaged_frames", "together"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.slowest_s = max(self.slowest_s, other.slowest_s)
        self.most_memory_bytes = max(self.most_memory_bytes, other.most_memory_bytes)


def feed(stream: Stream, count: int, *, seed: int) -> Outcome:
    """Feed `count` messages, about half of them mutated (fewer in runs), to decoders; now and then to a new one.

    Whatever a decoder or a frame raises that it must not comes out.
    """
    chance, outcome = random.Random(seed), Outcome()
    before = _most_memory_bytes()
    recorded = [list(message) for message in stream.messages()]
    while outcome.messages < count:
        decoder = stream.decoder()
        fed = []
        for message in _disordered(recorded, chance):
            fed.append(_mutated(message, recorded, chance, share=0.02 if stream.in_runs else 0.5))
            began_s = time.monotonic()
            _feed(decoder, fed[-1], outcome)
            outcome.slowest_s = max(outcome.slowest_s, time.monotonic() - began_s)
            if outcome.messages >= count:
                break
        if stream.in_runs:
            outcome.together += compare_runs(stream.decoder, fed, chance)
    outcome.most_memory_bytes = _most_memory_bytes() - before
    return outcome


def _feed(decoder: Decoder, message: Message, outcome: Outcome) -> None:
    outcome.messages += 1
    for arrival in decoder.decode([memoryview(part) for part in message]):
        outcome.arrivals += 1
        if isinstance(arrival, Malformed):
            outcome.malformed += 1
            assert "\n" not in arrival.reason, arrival
            assert len(arrival.reason) < 1000, arrival
        elif isinstance(arrival, FrameCame):
            outcome.frames += 1
            try:
                frame = arrival.image.decode()
            except ValueError:
                outcome.damaged_frames += 1
            else:
                assert (frame.shape, frame.dtype) == (arrival.image.shape_px, arrival.image.dtype)


def compare_runs(new_decoder: Callable[[], Decoder], messages: Sequence[Message], chance: random.Random) -> int:
    """Fail unless a decoder says the same of messages one by one and in runs; return how many frames came together."""
    one_by_one, in_runs, together, start = new_decoder(), new_decoder(), 0, 0
    while start < len(messages):
        some = messages[start : start + chance.choice([1, 2, 5, 20, 100])]
        expected = [
            (_said(arrival), float(start + place))
            for place, one in enumerate(some)
            for arrival in one_by_one.decode(one)
        ]
        came = []
        for arrival, at_s in in_runs.decode_run(run_of(some, np.arange(start, start + len(some), dtype=np.float64))):
            if isinstance(arrival, FramesCame):
                together += len(arrival.numbers)
                _compare_decoded(arrival)
                came += [(_said(frame), frame_at_s) for frame, frame_at_s in arrival]
            else:
                came.append((_said(arrival), at_s))
        assert came == expected
        start += len(some)
    return together


def run_of(messages: Sequence[Message], received_at_s: npt.NDArray[np.float64]) -> Run:
    """Return messages as they are read from an arrivals file, behind something else."""
    parts = [part for message in messages for part in message]
    bounds = 3 + np.cumsum([0, *map(len, parts)])
    window = memoryview(b"".join([b"abc", *parts, b"behind"]))
    return Run(0, received_at_s, window, np.array([len(message) for message in messages]), bounds)


def _said(arrival: object) -> object:
    """Return what can be compared of an arrival; of a frame also its bytes."""
    if not isinstance(arrival, FrameCame):
        return arrival if isinstance(arrival, Malformed | SeriesEnded) else repr(arrival)
    image = arrival.image
    assert isinstance(image, CompressedImage)
    return (
        arrival.series,
        arrival.number,
        image.codec,
        bytes(image.encoded),
        image.shape_px,
        image.dtype,
        image.shuffled_bytes,
    )


def _compare_decoded(frames: FramesCame) -> None:
    first = frames.images[0]
    target = np.empty((len(frames.numbers), *first.shape_px), first.dtype)
    if decode_together(frames.images, target):
        for pixels, image in zip(target, frames.images, strict=True):
            assert np.array_equal(pixels, image.decode())


def _most_memory_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _disordered(recorded: Sequence[Message], chance: random.Random) -> list[Message]:
    """Return the messages, some of them lost, twice, or at another place, or their parts in other messages."""
    messages = list(recorded)
    for _ in range(chance.choice([0, 0, 1, 2])):
        way, place = chance.randrange(5), chance.randrange(len(messages))
        if way == 0 and len(messages) > 1:
            del messages[place]
        elif way == 1:
            messages.insert(place, messages[place])
        elif way == 2:
            messages.insert(chance.randrange(len(messages)), messages.pop(place))
        elif way == 3:
            messages[place : place + 2] = [[part for message in messages[place : place + 2] for part in message]]
        else:
            messages[place : place + 1] = [[part] for part in messages[place]] or [[]]
    return messages


def _mutated(message: Message, recorded: Sequence[Message], chance: random.Random, *, share: float) -> list[bytes]:
    parts = list(message)
    if chance.random() >= share or not parts:
        return parts
    for _ in range(chance.choice([1, 1, 1, 2, 5])):
        place = chance.randrange(len(parts)) if parts else 0
        way = chance.randrange(8)
        if way == 0 and parts:
            del parts[place]
        elif way == 1:
            parts.insert(place, chance.choice(chance.choice([each for each in recorded if each])))
        elif way == 2 and parts:
            parts[place] = chance.choice(WILD_BYTES)
        elif parts:
            parts[place] = _damaged(parts[place], chance)
    return parts


def _damaged(part: bytes, chance: random.Random) -> bytes:
    way = chance.randrange(7)
    place = _place(part, chance)
    if way == 0:
        return part[:place]
    if way == 1:
        return part + chance.choice([b"\0", part[:64], bytes(chance.randrange(1, 5000))])
    if way == 2:
        return part[:place] + chance.choice(WILD_BYTES) + part[place:]
    if way == 3:
        return part[:place] + part[place + chance.randrange(1, 16) :]
    if way == 4:
        return _other_number(part, chance)
    changed = bytearray(part)
    for _ in range(chance.choice([1, 1, 2, 8])):
        if changed:
            where = _place(part, chance) % len(changed)
            changed[where] = chance.choice([changed[where] ^ 1 << chance.randrange(8), 0, 255, chance.randrange(256)])
    return bytes(changed)


def _place(part: bytes, chance: random.Random) -> int:
    """Return a place in a part; often near its beginning, where headers are."""
    return chance.randrange(min(len(part), chance.choice([16, 200, 1 << 30])) or 1)


def _other_number(part: bytes, chance: random.Random) -> bytes:
    """Replace a number in a text by one that cannot be."""
    digits = [place for place, byte in enumerate(part[:5000]) if 48 <= byte <= 57]
    if not digits:
        return part
    start = end = chance.choice(digits)
    while end < len(part) and part[end : end + 1] in b"0123456789.":
        end += 1
    return part[:start] + chance.choice(WILD_NUMBERS).encode() + part[end:]


def _one_process(stream: Stream, count: int, seed: int) -> None:
    """Print the outcome of a limited number of messages; memory and time are limited as well."""
    in_use = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY_BYTES,) * 2)
    decoder = stream.decoder

    def timed() -> Decoder:
        signal.setitimer(signal.ITIMER_REAL, SLOWEST_S)
        return decoder()

    print(json.dumps(asdict(feed(replace(stream, decoder=timed), count, seed=seed))))


def _campaign(name: str, count: int, seed: int) -> int:
    total, failed = Outcome(), []
    for first in range(seed, seed + -(-count // MESSAGES_PER_PROCESS)):
        command = [sys.executable, __file__, name, str(MESSAGES_PER_PROCESS), "--seed", str(first), "--one-process"]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            failed.append(first)
            print(f"seed {first} ended with status {ended.returncode}: {ended.stderr[-2000:]}", flush=True)
            continue
        total.add(Outcome(**json.loads(ended.stdout)))
    print(json.dumps(asdict(total) | {"failed_seeds": failed}), flush=True)
    return bool(failed)


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stream", help="module:name of a Stream; modules beside this file and in folders beside it")
    parser.add_argument("messages", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--one-process", action="store_true", help="without a new process for every thousand")
    asked = parser.parse_args()
    if not asked.one_process:
        return _campaign(asked.stream, asked.messages, asked.seed)
    here = Path(__file__).resolve().parent
    sys.path += [str(here), *(str(folder) for folder in here.iterdir() if folder.is_dir()), str(here.parent.parent)]
    module, _, attribute = asked.stream.partition(":")
    _one_process(getattr(importlib.import_module(module), attribute), asked.messages, asked.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
