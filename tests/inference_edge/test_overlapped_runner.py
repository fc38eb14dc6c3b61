"""What runs on a GPU, on a processor that does everything at once: the same code, the same patches."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from ptychoflow.inference_edge.backends import overlapped_runner
from ptychoflow.inference_edge.backends.overlapped_runner import CopyStreams, OverlappedRunner
from ptychoflow.inference_edge.backends.runner import begin_in_batches, run_in_batches

CPU = torch.device("cpu")
COUNTS = np.random.default_rng(0).integers(0, 200, (7, 6, 4))


def network(counts: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Give two channels."""
    assert counts.dtype == torch.float32
    return counts * 2, counts + 1


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int32", "float32", "float64", "bool"])
def test_counts_of_every_kind_give_their_patches(dtype):
    counts = COUNTS.astype(dtype)
    counts.flags.writeable = False
    runner = OverlappedRunner(network, CopyStreams(CPU))
    for some in (counts[:2], counts, counts[4:, ::2]):
        prediction = runner(some)
        np.testing.assert_array_equal(prediction.amplitude, some.astype(np.float32) * 2, strict=True)
        np.testing.assert_array_equal(prediction.phase, some.astype(np.float32) + 1, strict=True)


def test_batches_under_way_do_not_share_memory_and_frames_may_change():
    counts = COUNTS.astype(np.float32)
    runner = OverlappedRunner(network, CopyStreams(CPU))
    results = []
    for number in range(4):
        counts += number
        results.append((runner.begin(counts), counts.copy()))
    counts[:] = -1
    for result, given in reversed(results):
        np.testing.assert_array_equal(result().phase, given + 1)


@pytest.mark.parametrize("batch_max", [1, 3, 7, 100])
def test_more_frames_than_a_batch_may_have_come_back_in_order(batch_max):
    runner = OverlappedRunner(network, CopyStreams(CPU))
    begun = begin_in_batches(runner, COUNTS, batch_max=batch_max)
    np.testing.assert_array_equal(run_in_batches(runner, COUNTS, batch_max=batch_max).phase, COUNTS + 1)
    np.testing.assert_array_equal(begun().phase, COUNTS + 1)


class Device:
    """Streams and events that keep a diary: who waits for what, and which copy is queued where."""

    def __init__(self) -> None:
        self.diary: list[tuple[object, ...]] = []
        self.running: list[str] = ["computing"]
        device = self

        class Event:
            def __init__(self) -> None:
                self.of: str | None = None

            def record(self, stream: Stream) -> None:
                self.of = stream.name
                device.diary.append(("record", stream.name))

            def synchronize(self) -> None:
                device.diary.append(("host waits for", self.of))

        class Stream:
            names = iter(["uploading", "downloading"])

            def __init__(self, name: str | None = None) -> None:
                self.name = name or next(Stream.names)

            def wait_event(self, event: Event) -> None:
                device.diary.append((self.name, "waits for", event.of))

        self.Event, self.Stream = Event, Stream

    def current_stream(self) -> object:
        return self.Stream(self.running[-1])

    @contextmanager
    def stream(self, stream):
        self.running.append(stream.name)
        yield
        self.running.pop()


def test_every_stream_waits_for_the_one_before_and_the_host_for_the_last_alone(monkeypatch):
    device = Device()
    monkeypatch.setattr(overlapped_runner.torch, "get_device_module", lambda _: device)

    def computes(counts):
        device.diary.append(("computes on", device.running[-1]))
        return network(counts)

    runner = OverlappedRunner(computes, CopyStreams(CPU))
    first, second = runner.begin(COUNTS), runner.begin(COUNTS)
    batch = [
        ("record", "uploading"),
        ("computing", "waits for", "uploading"),
        ("computes on", "computing"),
        ("record", "computing"),
        ("downloading", "waits for", "computing"),
        ("record", "downloading"),
    ]
    assert device.diary == batch * 2, "nothing waits on the host before a result is asked for"
    threads = [threading.Thread(target=result) for result in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert device.diary[len(batch) * 2 :] == [("host waits for", "downloading")] * 2
