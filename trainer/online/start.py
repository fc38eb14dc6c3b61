"""How the ranks begin together: what was announced and the frames' dtype are the same for all."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist

from ptychoflow.streaming.codec import DTYPES
from ptychoflow.streaming.messages import StreamStart
from ptychoflow.trainer.online.ingest import SampleIngest

POLL_S = 0.05
DTYPE_NAMES = sorted(DTYPES)


@dataclass(frozen=True)
class Announced:
    """What is known once the first sample is there."""

    scan: StreamStart
    frame_dtype: str | None
    """Numpy name; None if the scan ended without a single training sample."""


def wait_for_samples(
    ingest: SampleIngest,
    *,
    stop: threading.Event,
    on_scan: Callable[[StreamStart], None] = lambda _: None,
    meanwhile: Callable[[], bool] = lambda: False,
) -> Announced | None:
    """Block until every rank has the scan's announcement and any rank a training sample, or all the whole stream.

    Collective. Returns None if `stop` was set on any rank. From then on all ranks take samples of one dtype alone.

    Args:
        ingest: of this rank.
        stop: ends the wait.
        on_scan: called once, when this rank has the scan's announcement.
        meanwhile: called again and again, for a moment's work; returns whether there was any.
    """
    told = False
    while True:
        ingest.queue.check()
        if ingest.scan is not None and not told:
            told = True
            on_scan(ingest.scan)
        announced, dtype, complete, stopped = _over_all_ranks(ingest, stop=stop)
        if stopped:
            return None
        if announced and (dtype is not None or complete) and ingest.scan is not None:
            if dtype is not None:
                ingest.hold_to(dtype)
            return Announced(ingest.scan, dtype)
        if not meanwhile():
            stop.wait(POLL_S)


def _over_all_ranks(ingest: SampleIngest, *, stop: threading.Event) -> tuple[bool, str | None, bool, bool]:
    """Return (all have the announcement, training samples' dtype on any, all have the whole stream, any must stop)."""
    # In this order: what comes meanwhile may be a sample behind which the stream ends.
    complete = ingest.queue.is_complete
    dtype = ingest.frame_dtype if ingest.has_samples else None
    dtype_code = 0 if dtype is None else 1 + DTYPE_NAMES.index(dtype)
    state = torch.tensor([ingest.scan is None, dtype_code, not complete, stop.is_set()], dtype=torch.int64)
    if dist.is_initialized():
        dist.all_reduce(state, op=dist.ReduceOp.MAX)
    some_unannounced, dtype_code, some_incomplete, stopped = state.tolist()
    dtype = DTYPE_NAMES[dtype_code - 1] if dtype_code else None
    return not some_unannounced, dtype, not some_incomplete, bool(stopped)
