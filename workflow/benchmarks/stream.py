"""Frames per second from the publisher to an edge and one rank, beside bare ZeroMQ sockets with the same batches."""

from __future__ import annotations

import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ptychoflow.acquisition.settings import PublishingSettings
from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.keys import make_keys
from ptychoflow.streaming.private_folder import private_folder
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.workflow.benchmarks.paired_rounds import PairedRounds, measure_pairs
from ptychoflow.workflow.benchmarks.stream_bare import BareStream
from ptychoflow.workflow.benchmarks.stream_ours import OurStream
from ptychoflow.workflow.launching.ports import resolve_ports

FRAME_SHAPE_PX = (128, 128)
TARGET_SHAPE_PX = (64, 64)
TARGET_RATIO = 0.8
DISTINCT_BATCHES = 16
"""Batches in turn, so that a receiver does not find the same memory in its cache every time."""
RECEIVERS = 2


def bench_stream(*, frames: int = 12_800, batch_frames: int | None = None, rounds: int = 15) -> dict[str, Any]:
    """Return `results` and `targets` as the design names them; takes about a minute.

    Args:
        frames: frames per round.
        batch_frames: frames per message; by default as the acquisition sends them.
        rounds: measurements of each kind, in turn.
    """
    if batch_frames is None:
        batch_frames = PublishingSettings().frames_per_message(2 * math.prod(FRAME_SHAPE_PX))
    batches = [_batch(batch_frames, seed) for seed in range(DISTINCT_BATCHES)]
    count = max(1, frames // batch_frames)
    case = {
        "frame_shape_px": FRAME_SHAPE_PX,
        "dtype": "uint16",
        "batch_frames": batch_frames,
        "frames": count * batch_frames,
        "receivers": RECEIVERS,
    }
    plain, keys = (_measure(batches, count, rounds, encrypted=encrypted) for encrypted in (False, True))
    return {
        "results": [
            case | {"link": "files"} | plain.figures("frames"),
            case | {"link": "keys"} | keys.figures("frames"),
        ],
        "targets": [*plain.targets("stream", TARGET_RATIO), *keys.targets("stream_with_keys", TARGET_RATIO)],
    }


def _batch(frames: int, seed: int) -> Arrays:
    random = np.random.default_rng(seed)
    return {
        "diffraction": random.poisson(3.0, (frames, *FRAME_SHAPE_PX)).astype(np.uint16),
        "amplitude": random.random((frames, *TARGET_SHAPE_PX)).astype(np.float16),
        "phase": random.random((frames, *TARGET_SHAPE_PX)).astype(np.float16),
    }


def _measure(batches: list[Arrays], count: int, rounds: int, *, encrypted: bool) -> PairedRounds:
    with ExitStack() as stack:
        folder = stack.enter_context(private_folder())
        ours = stack.enter_context(OurStream(_network(folder / "ours", encrypted=encrypted), batches, folder / "spool"))
        bare = stack.enter_context(BareStream(_network(folder / "bare", encrypted=encrypted), batches))
        return measure_pairs(lambda: ours.measure(count), lambda: bare.measure(count), rounds=rounds)


def _network(folder: Path, *, encrypted: bool) -> NetworkSettings:
    """Return where the parts of one line meet: ports with keys, or files in a folder."""
    if not encrypted:
        return NetworkSettings(sockets_dir=folder)
    make_keys(folder)
    return resolve_ports(NetworkSettings(keys_dir=folder), ranks=1)
