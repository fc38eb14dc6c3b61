"""How the ranks begin together: the scan's shapes, the frames' dtype and the input scale are the same for all."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import torch
import torch.distributed as dist

from ptychoflow.streaming.codec import DTYPES
from ptychoflow.streaming.messages import ScanEnd, StreamStart
from ptychoflow.trainer.models.frame_network import FrameNetwork
from ptychoflow.trainer.online.ingest import Arrivals

POLL_S = 0.05
DTYPE_NAMES = sorted(DTYPES)


@dataclass(frozen=True)
class Announced:
    """What is known once the first sample is there."""

    scan: StreamStart
    frame_dtype: str | None
    """Numpy name; None if the scan ended without a single training sample."""


def wait_for_scan(arrivals: Arrivals, *, stop: threading.Event) -> StreamStart | None:
    """Block until this rank has the scan's announcement; None if `stop` was set before."""
    while arrivals.scan is None and not stop.is_set():
        arrivals.check()
        stop.wait(POLL_S)
    return arrivals.scan


def wait_for_samples(arrivals: Arrivals, *, stop: threading.Event) -> Announced | None:
    """Block until every rank has the scan's announcement and any rank a sample, or all the end of the scan.

    Collective. Returns None if `stop` was set on any rank.
    """
    while True:
        arrivals.check()
        announced, dtype, ended, stopped = _over_all_ranks(arrivals, stop=stop)
        if stopped:
            return None
        if announced and (dtype is not None or ended) and arrivals.scan is not None:
            return Announced(arrivals.scan, dtype)
        stop.wait(POLL_S)


def fit_input_scale(network: FrameNetwork, arrivals: Arrivals) -> None:
    """Choose the network's input scale from the first samples that wait on any rank. Collective."""
    waiting = arrivals.queue.first()
    power_and_ranks = torch.zeros(2, dtype=torch.float64)
    if waiting is not None:
        power_and_ranks[0] = network.input_power(torch.from_numpy(waiting["diffraction"]))
        power_and_ranks[1] = 1.0
    if dist.is_initialized():
        dist.all_reduce(power_and_ranks)
    power, ranks = power_and_ranks.tolist()
    network.scale_input_to(power / max(ranks, 1.0))


def _over_all_ranks(arrivals: Arrivals, *, stop: threading.Event) -> tuple[bool, str | None, bool, bool]:
    """Return (all have the announcement, the frames' dtype on any, all are at the end of the scan, any must stop)."""
    dtype_code = 0 if arrivals.frame_dtype is None else 1 + DTYPE_NAMES.index(arrivals.frame_dtype)
    ended = isinstance(arrivals.queue.marker, ScanEnd)
    state = torch.tensor([arrivals.scan is None, dtype_code, not ended, stop.is_set()], dtype=torch.int64)
    if dist.is_initialized():
        dist.all_reduce(state, op=dist.ReduceOp.MAX)
    some_unannounced, dtype_code, some_not_ended, stopped = state.tolist()
    dtype = DTYPE_NAMES[dtype_code - 1] if dtype_code else None
    return not some_unannounced, dtype, not some_not_ended, bool(stopped)
