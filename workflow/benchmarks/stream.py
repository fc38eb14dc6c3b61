"""Frames per second from the publisher to an edge and one rank, beside bare ZeroMQ sockets with the same batches."""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zmq

from ptychoflow.streaming.inbox import Inbox
from ptychoflow.streaming.messages import Frames, PerspectiveEnd, Samples
from ptychoflow.streaming.private_folder import private_folder
from ptychoflow.streaming.publisher import Publisher, rank_name
from ptychoflow.streaming.settings import NetworkSettings
from ptychoflow.workflow.target import make_target

Batch = dict[str, npt.NDArray[Any]]

FRAME_SHAPE_PX = (128, 128)
TARGET_SHAPE_PX = (64, 64)
TARGET_RATIO = 0.5
DISTINCT_BATCHES = 32
"""Batches in turn, so that a receiver does not find the same memory in its cache every time."""
RECEIVERS = 2
END = b"end"


def bench_stream(*, frames: int = 20_000, batch_frames: int = 16, rounds: int = 5) -> dict[str, Any]:
    """Return `results` and `targets` as the design names them; takes about 10 s.

    Args:
        frames: frames per measurement.
        batch_frames: frames per message.
        rounds: measurements of each kind, in turn; medians are reported.
    """
    batches = [_batch(batch_frames, seed) for seed in range(DISTINCT_BATCHES)]
    count = frames // batch_frames
    ours, bare = [], []
    for _ in range(rounds):
        bare.append(count * batch_frames / _time_bare(batches, count))
        ours.append(count * batch_frames / _time_ours(batches, count))
    ratio = statistics.median(one / other for one, other in zip(ours, bare, strict=True))
    case = {
        "frame_shape_px": FRAME_SHAPE_PX,
        "dtype": "uint16",
        "batch_frames": batch_frames,
        "frames": count * batch_frames,
        "receivers": RECEIVERS,
        "frames_per_s": statistics.median(ours),
        "bare_frames_per_s": statistics.median(bare),
        "ratio_to_bare": ratio,
    }
    return {"results": [case], "targets": [make_target("stream_ratio_to_bare", ratio, TARGET_RATIO, "min")]}


def _batch(frames: int, seed: int) -> Batch:
    random = np.random.default_rng(seed)
    return {
        "diffraction": random.poisson(3.0, (frames, *FRAME_SHAPE_PX)).astype(np.uint16),
        "amplitude": random.random((frames, *TARGET_SHAPE_PX)).astype(np.float16),
        "phase": random.random((frames, *TARGET_SHAPE_PX)).astype(np.float16),
    }


def _time_ours(batches: list[Batch], count: int) -> float:
    with ExitStack() as stack:
        network = NetworkSettings(sockets_dir=stack.enter_context(private_folder()))
        receivers = [(_receive_ours, (network, "edge")), (_receive_ours, (network, rank_name(0)))]
        spool_dir = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        publisher = stack.enter_context(Publisher(network, spool_dir=spool_dir, memory_bytes=1 << 33))
        stack.enter_context(_processes(receivers))
        _post(publisher, batches, 1)
        _settle(publisher)
        began_s = time.perf_counter()
        _post(publisher, batches, count)
        _settle(publisher)
        elapsed_s = time.perf_counter() - began_s
        end = PerspectiveEnd(0, 0.0, 0)
        publisher.post_to_edge(end)
        publisher.post_to_ranks(end)
        _settle(publisher)
    return elapsed_s


def _post(publisher: Publisher, batches: list[Batch], count: int) -> None:
    for number in range(count):
        batch = batches[number % len(batches)]
        publisher.post_to_edge(Frames(0, 0.0, 0.0), {"diffraction": batch["diffraction"]})
        publisher.post_samples(Samples(0), batch)
        publisher.pump(0.0)


def _settle(publisher: Publisher) -> None:
    while publisher.unacknowledged:
        publisher.pump(0.05)


def _receive_ours(network: NetworkSettings, consumer: str) -> None:
    port = network.frames_port if consumer == "edge" else network.samples_port
    with Inbox(network, consumer=consumer, port=port, world_size=int(consumer != "edge")) as inbox:
        while True:
            delivery = inbox.receive(1.0)
            if delivery is None:
                continue
            inbox.acknowledge([delivery.sequence])
            if isinstance(delivery.message, PerspectiveEnd):
                return


def _time_bare(batches: list[Batch], count: int) -> float:
    with ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        done = stack.enter_context(context.socket(zmq.PULL))
        folder = stack.enter_context(private_folder())
        done.bind(f"ipc://{folder}/done")
        pushes = [stack.enter_context(context.socket(zmq.PUSH)) for _ in range(RECEIVERS)]
        for number, push in enumerate(pushes):
            push.bind(f"ipc://{folder}/{number}")
        stack.enter_context(_processes([(_receive_bare, (folder, number)) for number in range(RECEIVERS)]))
        _push(pushes, batches, 1)
        _await_ends(done)
        began_s = time.perf_counter()
        _push(pushes, batches, count)
        _await_ends(done)
        return time.perf_counter() - began_s


def _push(pushes: list[zmq.Socket[bytes]], batches: list[Batch], count: int) -> None:
    edge, rank = pushes
    for number in range(count):
        batch = batches[number % len(batches)]
        edge.send(batch["diffraction"].data, copy=False)
        rank.send_multipart([array.data for array in batch.values()], copy=False)
    for push in pushes:
        push.send(END)


def _await_ends(done: zmq.Socket[bytes]) -> None:
    for _ in range(RECEIVERS):
        done.recv()


def _receive_bare(folder: Path, number: int) -> None:
    """Receive the warm-up and the measured run, reporting the end of each."""
    with zmq.Context() as context, context.socket(zmq.PULL) as pull, context.socket(zmq.PUSH) as done:
        pull.connect(f"ipc://{folder}/{number}")
        done.connect(f"ipc://{folder}/done")
        for _ in range(2):
            while len(pull.recv_multipart(copy=False)[0]) != len(END):
                pass
            done.send(END)


@contextmanager
def _processes(targets: list[tuple[Callable[..., None], tuple[Any, ...]]]) -> Iterator[None]:
    context = multiprocessing.get_context("spawn")
    processes: list[SpawnProcess] = [context.Process(target=target, args=args) for target, args in targets]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.join(timeout=10.0)
            if process.is_alive():
                process.kill()
