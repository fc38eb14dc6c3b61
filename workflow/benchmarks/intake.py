"""Samples per second that a rank takes in, beside plain copies of the same bytes into minibatches."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ptychoflow.streaming.codec import Arrays
from ptychoflow.streaming.messages import FrameRole, Samples, ScanStart
from ptychoflow.trainer.online.ingest import SampleIngest
from ptychoflow.trainer.pipelines.choice import format_of
from ptychoflow.trainer.pipelines.ptychography.pipeline import FIELDS
from ptychoflow.workflow.benchmarks.paired_rounds import Took, measure_pairs, spread, timed
from ptychoflow.workflow.target import make_target

MESSAGE_SAMPLES = 16
BATCH_SAMPLES = 24
DISTINCT_MESSAGES = 8
"""Served in turn: about as much as a socket has just written to the processor's cache."""
ROUNDS = 15
TARGET_PER_CORE_S = 20_000.0


def bench_intake(*, frame_px: int = 128, messages: int = 300) -> dict[str, Any]:
    """Return `results` and `targets`; takes about 3 s.

    Ours is all that a rank does between the socket and the training step: samples are told apart by their ids, tested,
    counted, put into minibatches, and settled when they are trained on. What comes before is `bench stream`'s.

    Args:
        frame_px: frames and patches are this wide and high.
        messages: in each round.
    """
    batches = [_arrays(frame_px, number) for number in range(DISTINCT_MESSAGES)]
    bytes_per_sample = sum(batches[0][name][0].nbytes for name in FIELDS)

    def ours() -> Took:
        ingest = SampleIngest(format_of, queue_samples=messages * MESSAGE_SAMPLES)
        ingest.route_message(0, _scan_start(frame_px), {})
        ingest.queue.next_minibatch(BATCH_SAMPLES, timeout_s=0.0)
        return timed(lambda: _take_in(ingest, batches, messages), items=messages * MESSAGE_SAMPLES)

    def bare() -> Took:
        return timed(lambda: _copy(batches, messages), items=messages * MESSAGE_SAMPLES)

    rounds = measure_pairs(ours, bare, rounds=ROUNDS)
    case = {
        "frame_shape_px": (frame_px, frame_px),
        "dtypes": {name: batches[0][name].dtype.name for name in FIELDS},
        "bytes_per_sample": bytes_per_sample,
        "message_samples": MESSAGE_SAMPLES,
        "batch_samples": BATCH_SAMPLES,
        **rounds.figures("samples"),
    }
    per_core_s = spread(took.items / took.cpu_s for took in rounds.ours).lower
    return {
        "results": [case],
        "targets": [make_target("intake_samples_per_core_s", per_core_s, TARGET_PER_CORE_S, "min")],
    }


def _take_in(ingest: SampleIngest, batches: list[Arrays], messages: int) -> None:
    for number in range(messages):
        first = number * MESSAGE_SAMPLES
        index = np.arange(first, first + MESSAGE_SAMPLES, dtype=np.int32)
        ingest.route_message(number + 1, Samples(perspective=0), batches[number % len(batches)] | {"index": index})
        while ingest.queue.next_minibatch(BATCH_SAMPLES, timeout_s=0.0) is not None:
            ingest.queue.mark_trained()
        ingest.queue.pop_acknowledgeable()


def _copy(batches: list[Arrays], messages: int) -> None:
    """Copy as many bytes to as many new minibatches."""
    slots: dict[str, torch.Tensor] = {}
    filled = BATCH_SAMPLES
    for number in range(messages):
        arrays, first = batches[number % len(batches)], 0
        while first < MESSAGE_SAMPLES:
            if filled == BATCH_SAMPLES:
                shapes = {name: (BATCH_SAMPLES, *arrays[name].shape[1:]) for name in FIELDS}
                slots = {name: torch.empty(shapes[name], dtype=_dtype(arrays[name])) for name in FIELDS}
                filled = 0
            count = min(MESSAGE_SAMPLES - first, BATCH_SAMPLES - filled)
            for name, slot in slots.items():
                slot.numpy()[filled : filled + count] = arrays[name][first : first + count]
            first, filled = first + count, filled + count


def _dtype(array: np.ndarray[Any, Any]) -> torch.dtype:
    return torch.from_numpy(array[:0]).dtype


def _scan_start(frame_px: int) -> ScanStart:
    shape = (frame_px, frame_px)
    return ScanStart("bench", 1, shape, shape, (1e-8, 1e-8), 8800.0, 1.0, (75e-6, 75e-6))


def _arrays(frame_px: int, seed: int) -> Arrays:
    random, shape = np.random.default_rng(seed), (MESSAGE_SAMPLES, frame_px, frame_px)
    return {
        "role": np.full(MESSAGE_SAMPLES, FrameRole.TRAIN, np.uint8),
        "diffraction": random.poisson(20.0, shape).astype(np.uint16),
        "amplitude": random.uniform(0.5, 1.0, shape).astype(np.float16),
        "phase": random.uniform(-1.0, 1.0, shape).astype(np.float16),
    }
